"""States with a log: appended to, saved, loaded, followed, and as one object in a program."""
