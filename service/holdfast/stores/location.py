"""A store's place, as a URL: ``memory://``, ``disk:///path``, ``nats://bucket?replicas=3``.

Why: docs/decisions.md, "What a store's URL states binds, and nothing else does".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from holdfast.domain.store_state import MAX_REPLICAS, Layout
from holdfast.errors import InvalidError

_FORMS: Final = "a store is memory://, disk:///absolute/path or nats://BUCKET?replicas=N"
_BUCKET: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
MAX_TAGS: Final = 8
_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_TAG: Final = r"[A-Za-z0-9_.:=/-]{1,64}"
_SIZE: Final = r"-1|(?!0+(?!\d))\d{1,18}([KMGT]i?B?)?"
_BYTES: Final = "a number of bytes such as 1073741824 or 1GiB, or -1"
_OPTIONS: Final = {
    "replicas": (rf"[1-{MAX_REPLICAS}]", f"1 to {MAX_REPLICAS}"),
    "storage": ("file|memory", "file or memory"),
    "max_bytes": (_SIZE, _BYTES),
    "states_max_bytes": (_SIZE, _BYTES),
    "tags": (
        rf"{_TAG}(,{_TAG}){{0,{MAX_TAGS - 1}}}",
        f"up to {MAX_TAGS} of the servers' tags with commas between: tags=ssd,eu",
    ),
    "cluster": ("[A-Za-z0-9_.-]{1,64}", "the name of a cluster: 1 to 64 of A-Z a-z 0-9 _ . -"),
}
"""The form of each option, in a pattern and in words."""


@dataclass(frozen=True, slots=True)
class MemoryLocation:
    """In this process; gone with it."""


@dataclass(frozen=True, slots=True)
class DiskLocation:
    """Under a directory."""

    root: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketLocation(Layout):
    """In JetStream. Settings that the URL omits are not checked; see Layout."""

    bucket: str


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
        raise InvalidError("a bucket's name is 1 to 64 of A-Z a-z 0-9 _ -")
    options = dict(pairs)
    if len(options) != len(pairs):
        raise InvalidError("a store's URL gives an option twice")
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        msg = f"a store's URL has no option {unknown[0]!r}: it has {', '.join(_OPTIONS)}"
        raise InvalidError(msg)
    for name, text in options.items():
        form, words = _OPTIONS[name]
        if re.fullmatch(form, text, re.ASCII) is None:
            raise InvalidError(f"{name} is {words}")
    return BucketLocation(
        bucket=bucket,
        replicas=int(options["replicas"]) if "replicas" in options else None,
        storage="memory" if options.get("storage") == "memory" else "file",
        max_bytes=_bytes(options.get("max_bytes")),
        states_max_bytes=_bytes(options.get("states_max_bytes")),
        tags=tuple(dict.fromkeys(options["tags"].split(","))) if "tags" in options else (),
        cluster=options.get("cluster"),
    )


def _bytes(size: str | None) -> int | None:
    """The bytes that ``size`` stands for, which has the form of one."""
    if size is None:
        return None
    number = size.rstrip("KMGTiB")
    return int(number) * _UNITS[size[len(number) :][:1]]
