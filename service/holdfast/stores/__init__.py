"""Stores of bytes and records: the ports, and an adapter for each kind of place."""
