"""The commands that tell how the store and its workers are."""
