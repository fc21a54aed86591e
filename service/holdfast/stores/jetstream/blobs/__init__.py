"""The store of blobs in a bucket: chunks, the records that name them, and their care."""
