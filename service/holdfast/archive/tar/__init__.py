"""A tar stream as the source of a snapshot."""
