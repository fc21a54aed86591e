"""HTTP in front of the client library: blobs, names and snapshots for programs without NATS.

The gateway holds no data and no state, so any number of them run behind anything that balances.
It reaches storage by the client's requests only.
"""
