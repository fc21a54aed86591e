"""The pages of blobs by name."""
