"""The stores in JetStream: an Object Store bucket for blobs, a KV bucket for records."""
