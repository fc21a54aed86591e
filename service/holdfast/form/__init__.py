"""What is written down for ever: the stored form of snapshots, and the terms files share."""
