"""One NATS message, with its headers parsed only when somebody looks."""

from __future__ import annotations

import re
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from holdfast.protocol import headers as names

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION: Final = b"NATS/1.0"
_BEGIN: Final = "NATS/1.0\r\n"
_NAME_RE: Final = re.compile(r"[!-9;-~]+", re.ASCII)  # ADR-4: visible, and no colon
_SPACE: Final = " \t\n\r\v\f"
_NO_HEADERS: Final[dict[str, str]] = {}
_FEW_BYTES: Final = 48
"""So short a block comes again and again: a status, or a content type alone."""


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
        self._headers: Mapping[str, str] | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, case as sent; of repeated ones the last. ``Status`` is the inline status."""
        if not self.raw_headers:
            return _NO_HEADERS
        if self._headers is None:
            few = len(self.raw_headers) <= _FEW_BYTES
            self._headers = (
                _known_headers(self.raw_headers) if few else parse_headers(self.raw_headers)
            )
        return self._headers


def parse_headers(block: bytes) -> dict[str, str]:
    """A NATS header block (ADR-4) as a mapping. Lines that are no header are skipped."""
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    status = first[len(_VERSION) :].strip(_SPACE)
    if status:
        code, _, description = status.partition(" ")
        headers[names.STATUS] = code
        headers[names.DESCRIPTION] = description
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip(_SPACE)
    return headers


@lru_cache(maxsize=256)
def _known_headers(block: bytes) -> Mapping[str, str]:
    return MappingProxyType(parse_headers(block))


@lru_cache(maxsize=256)
def _is_name(name: str) -> bool:
    return _NAME_RE.fullmatch(name) is not None


def format_headers(headers: Mapping[str, str]) -> bytes:
    """``headers`` as a header block.

    Raises ValueError for a name or value that would break out of its line.
    """
    block = _BEGIN
    for name, value in headers.items():
        if "\r" in value or "\n" in value or not _is_name(name):
            raise ValueError(f"header {name!r} cannot be sent")
        block += f"{name}: {value}\r\n"
    return f"{block}\r\n".encode()
