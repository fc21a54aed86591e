"""Bytes over HTTP: bodies of requests, and content as answers with conditions and ranges."""
