"""The commands that run a worker, a gateway, or all of it on this machine."""
