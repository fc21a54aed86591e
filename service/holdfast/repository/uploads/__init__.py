"""Streamed puts that survive the worker that owns them.

- part: a piece of an upload as the client sends it; all are of one size but the last.
- staging: the place of an upload's parts until they are a blob. It has one writer for ever.
- tail: bytes at the end of an upload that do not fill a part yet.
"""
