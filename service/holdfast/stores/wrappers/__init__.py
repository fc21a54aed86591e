"""What is put around a store: limits, retries, metrics."""
