"""Looking after stored bytes: they are read back, mended, counted, and faults are told."""
