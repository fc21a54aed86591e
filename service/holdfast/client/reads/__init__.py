"""Reading: windows of bytes ahead of the reader, and the files that they go to."""
