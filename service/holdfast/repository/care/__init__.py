"""Looking after what is stored: it is read back, mended, counted, and what is wrong is told."""
