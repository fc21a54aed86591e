"""The stored form of snapshots, which is for ever, and the terms that files share."""
