"""The pages of snapshots: kept, read, put back."""
