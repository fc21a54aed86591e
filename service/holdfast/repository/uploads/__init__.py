"""Streamed puts that survive the worker that owns them."""
