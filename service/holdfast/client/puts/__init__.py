"""Putting: small bytes in one message, large ones as parts of an upload."""
