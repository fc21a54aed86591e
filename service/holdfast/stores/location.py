"""Where a store is, as a URL: ``memory://``, ``disk:///path``, ``nats://bucket?replicas=3``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from holdfast.errors import InvalidError

MAX_REPLICAS: Final = 5
_FORMS: Final = "a store is memory://, disk:///absolute/path or nats://BUCKET?replicas=N"
_BUCKET: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,18})([KMGT]i?B?)?", re.ASCII)
_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass(frozen=True, slots=True)
class MemoryLocation:
    """In this process; gone with it."""


@dataclass(frozen=True, slots=True)
class DiskLocation:
    """Under a directory."""

    root: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketLocation:
    """In JetStream. All but ``bucket`` matter to who creates it. ``max_bytes`` -1: no limit."""

    bucket: str
    replicas: int = 1
    storage: Literal["file", "memory"] = "file"
    max_bytes: int = -1


Location = MemoryLocation | DiskLocation | BucketLocation


def parse_location(url: str) -> Location:
    """The store that ``url`` names. Raises InvalidError with what is wrong."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidError(_FORMS) from error
    if parts.fragment:
        raise InvalidError(_FORMS)
    if parts.scheme == "memory" and not (parts.netloc or parts.path or parts.query):
        return MemoryLocation()
    if parts.scheme == "disk" and not (parts.netloc or parts.query):
        path = unquote(parts.path)
        if path.startswith("/") and "\0" not in path:
            return DiskLocation(Path(path))
    if parts.scheme == "nats" and not parts.path.strip("/"):
        return _bucket(parts.netloc, parse_qsl(parts.query, keep_blank_values=True))
    raise InvalidError(_FORMS)


def _bucket(bucket: str, pairs: list[tuple[str, str]]) -> BucketLocation:
    if _BUCKET.fullmatch(bucket) is None:
        msg = "a bucket's name is 1 to 64 of A-Z a-z 0-9 _ -"
        raise InvalidError(msg)
    options = dict(pairs)
    if len(options) != len(pairs):
        msg = "a store's URL gives an option twice"
        raise InvalidError(msg)
    replicas = options.pop("replicas", "1")
    storage = options.pop("storage", "file")
    max_bytes = options.pop("max_bytes", "-1")
    if options:
        msg = f"a store's URL has no option {min(options)!r}: replicas, storage and max_bytes"
        raise InvalidError(msg)
    if replicas not in {str(n) for n in range(1, MAX_REPLICAS + 1)}:
        msg = f"replicas is 1 to {MAX_REPLICAS}"
        raise InvalidError(msg)
    if storage not in {"file", "memory"}:
        msg = "storage is file or memory"
        raise InvalidError(msg)
    kind: Literal["file", "memory"] = "file" if storage == "file" else "memory"
    return BucketLocation(
        bucket=bucket, replicas=int(replicas), storage=kind, max_bytes=_size(max_bytes)
    )


def _size(text: str) -> int:
    if text == "-1":
        return -1
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        msg = "max_bytes is a number of bytes such as 1073741824 or 1GiB, or -1"
        raise InvalidError(msg)
    return int(match[1]) * _UNITS[(match[2] or "")[:1]]
