"""The stores in a directory of one machine: blobs as files, records in SQLite."""
