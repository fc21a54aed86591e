"""Wrappers of a store: limits, retries, metrics."""
