"""Decisions: plain functions of their arguments. No I/O, no clock, no randomness."""
