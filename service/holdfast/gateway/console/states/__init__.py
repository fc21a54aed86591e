"""The pages of states."""
