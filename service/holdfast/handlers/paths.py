"""Paths on the wire: text, and exact bytes beside it where text cannot say it."""

from __future__ import annotations

from holdfast.archive.paths import parse_path, path_text


def requested_path(path: str, path_bytes: bytes | None) -> bytes:
    """The path that a request means, checked. Raises InvalidError, TooLargeError."""
    return parse_path(path if path_bytes is None else path_bytes)


def wire_path(path: bytes) -> tuple[str, bytes | None]:
    """``path`` as text, and as bytes where the text does not tell all of it."""
    text = path_text(path)
    return text, None if text.encode(errors="replace") == path else path
