"""Space comes back: unneeded blobs are found and removed, by any number of workers at once."""
