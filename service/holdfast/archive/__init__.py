"""Trees of files as snapshots: archiving, reading, restoring, comparing, exporting.

Everything here is plain blocking code that runs in a thread; it knows files and frames, and of a
store only that it keeps packs (``ports``).

The words, which `holdfast.form` shares:

- member: one entry of a tar; run: small members next to each other, cut as one.
- frame: an independent zstd frame of tar bytes, named by their SHA-256; pack: frames in one blob of
  the space ``packs``, one message.
- page: the metadata of about a thousand entries, and where their frames lie; stat page: what of it
  the next snapshot compares.
- root: the pages and packs of a snapshot; its digest is the snapshot's.
- parent: the snapshot that a new one is built upon, of which it takes over what has not changed.
"""
