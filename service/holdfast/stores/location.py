"""A store's place, as a URL: ``memory://``, ``disk:///path``, ``nats://bucket?replicas=3``.

Why: docs/decisions.md, "What a store's URL states binds, and nothing else does".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from holdfast.domain.store_state import MAX_REPLICAS, Layout, Storage
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMS: Final = "a store is memory://, disk:///absolute/path or nats://BUCKET?replicas=N"
_BUCKET: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_.:=/-]{1,64}", re.ASCII)
_CLUSTER: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_OPTIONS: Final = ("replicas", "storage", "max_bytes", "states_max_bytes", "tags", "cluster")
MAX_TAGS: Final = 8
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
    return BucketLocation(
        bucket=bucket,
        replicas=_replicas(options["replicas"]) if "replicas" in options else None,
        storage=_storage(options.get("storage", "file")),
        max_bytes=_limit(options, "max_bytes"),
        states_max_bytes=_limit(options, "states_max_bytes"),
        tags=_tags(options["tags"]) if "tags" in options else (),
        cluster=_cluster(options["cluster"]) if "cluster" in options else None,
    )


def _replicas(text: str) -> int:
    if text not in {str(n) for n in range(1, MAX_REPLICAS + 1)}:
        raise InvalidError(f"replicas is 1 to {MAX_REPLICAS}")
    return int(text)


def _storage(text: str) -> Storage:
    if text == "file":
        return "file"
    if text == "memory":
        return "memory"
    raise InvalidError("storage is file or memory")


def _tags(text: str) -> tuple[str, ...]:
    tags = tuple(text.split(","))
    if len(tags) > MAX_TAGS or not all(map(_TAG.fullmatch, tags)):
        msg = f"tags is up to {MAX_TAGS} of the servers' tags with commas between: tags=ssd,eu"
        raise InvalidError(msg)
    return tuple(dict.fromkeys(tags))


def _cluster(text: str) -> str:
    if _CLUSTER.fullmatch(text) is None:
        raise InvalidError("cluster is the name of a cluster: 1 to 64 of A-Z a-z 0-9 _ . -")
    return text


def _limit(options: Mapping[str, str], name: str) -> int | None:
    if name not in options:
        return None
    text = options[name]
    if text == "-1":
        return -1
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise InvalidError(f"{name} is a number of bytes such as 1073741824 or 1GiB, or -1")
    return int(match[1]) * _UNITS[(match[2] or "")[:1]]
