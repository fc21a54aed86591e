"""The index of names that each worker keeps: lists in order, and the users of a blob.

It is derived: built from the store when the worker starts, and built anew when in doubt.

Why: docs/decisions.md, "Each worker keeps an index of names".
"""
