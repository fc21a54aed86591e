"""``client.snapshots``: snapshots for programs, made by workers or here."""
