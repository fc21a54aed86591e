"""Things announced, made and ended: records by compare-and-set, leases, ``Op-Id``s."""
