"""The pages that tell how the pool and its store are."""
