"""The base of all commands: their arguments and settings, the connection, and what is printed."""
