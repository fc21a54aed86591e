"""Names of blobs: records with states and history, versions, and an index in each worker.

- version: the number of a name's content; a former one may be kept, with its blob.
- announcement: a write of a name that is under way, in the name's record.
- transition: one step of a name that was made, in the same record.
"""
