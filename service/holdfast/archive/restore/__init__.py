"""Frames back to files, in the place of what is there."""
