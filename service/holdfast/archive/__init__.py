"""Trees of files as snapshots: archiving, reading, restoring, comparing, exporting.

Everything here is plain blocking code that runs in a thread; it knows files and frames, and of a
store only that it keeps packs (``ports``).
"""
