"""The process: what it is told, how it logs, and the nats-server of a single machine."""
