"""Links that may be used once."""
