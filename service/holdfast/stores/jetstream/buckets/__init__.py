"""Buckets as a whole: made, checked, copied, and ready or not."""
