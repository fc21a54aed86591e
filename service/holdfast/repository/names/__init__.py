"""Names of blobs: records with states and history, versions, and an index in each worker."""
