"""Files to frames: what a snapshot is made of."""
