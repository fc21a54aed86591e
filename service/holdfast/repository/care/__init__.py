"""Looking after stored bytes: they are read back, mended, counted, and faults are told.

- place: a server whose copies are read back; a store on disk is one place.
- lap: one time that all copies at a place are read back.
"""
