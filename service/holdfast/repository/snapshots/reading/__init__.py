"""Reading out of snapshots, in threads: lists, differences, contents, archives."""
