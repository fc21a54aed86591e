"""Space comes back: what nothing needs is found and removed, by any number of workers at once."""
