"""Where bytes and records are kept: the ports, and an adapter for each kind of place."""
