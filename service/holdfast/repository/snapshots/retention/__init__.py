"""Which snapshots are kept: policies of apps, and the runs that carry them out."""
