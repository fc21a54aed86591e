"""Snapshots of directories: made, read, restored, ended, removed."""
