"""A snapshot as it is stored: read, compared, exported, verified."""
