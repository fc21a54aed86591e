"""One NATS message, with its headers parsed only when somebody looks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from holdfast.protocol import headers as names

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION: Final = b"NATS/1.0"
_NAME_RE: Final = re.compile(r"[!-9;-~]+", re.ASCII)  # ADR-4: visible, and no colon
_NO_HEADERS: Final[dict[str, str]] = {}


class Message:
    """A received message. ``data`` may be a view of a buffer that is this message's alone."""

    __slots__ = ("_headers", "data", "raw_headers", "reply", "subject")

    def __init__(
        self, subject: str, reply: str, data: bytes | memoryview, raw_headers: bytes = b""
    ) -> None:
        """Keep the parts as the parser found them."""
        self.subject = subject
        self.reply = reply
        self.data = data
        self.raw_headers = raw_headers
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, case as sent; of repeated ones the last. ``Status`` is the inline status."""
        if not self.raw_headers:
            return _NO_HEADERS
        if self._headers is None:
            self._headers = parse_headers(self.raw_headers)
        return self._headers


def parse_headers(block: bytes) -> dict[str, str]:
    """A NATS header block (ADR-4) as a mapping. Lines that are no header are skipped."""
    lines = block.split(b"\r\n")
    headers: dict[str, str] = {}
    status = lines[0][len(_VERSION) :].strip()
    if status:
        code, _, description = status.partition(b" ")
        headers[names.STATUS] = code.decode("latin-1")
        headers[names.DESCRIPTION] = description.decode("utf-8", "replace")
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.decode("utf-8", "replace")] = value.strip().decode("utf-8", "replace")
    return headers


def format_headers(headers: Mapping[str, str]) -> bytes:
    """``headers`` as a header block.

    Raises ValueError for a name or value that would break out of its line.
    """
    lines = [_VERSION]
    for name, value in headers.items():
        if "\r" in value or "\n" in value or _NAME_RE.fullmatch(name) is None:
            msg = f"header {name!r} cannot be sent"
            raise ValueError(msg)
        lines.append(f"{name}: {value}".encode())
    lines.append(b"\r\n")
    return b"\r\n".join(lines)
