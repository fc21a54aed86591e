"""One level of a snapshot's tree, out of a list of all that lies below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.protocol.entries import wire_path
from holdfast.protocol.files import LIST_FILES, FileEntry, ListFiles

if TYPE_CHECKING:
    from holdfast.client.requests import Requester

VIEWED_BYTES: Final = 64 * 1024
"""The part of a file shown on its page."""

_PAGE: Final = 1000
_MAX_PAGES: Final = 10
_ENOUGH: Final = 500
_CONTROLS: Final = bytes(set(range(32)) - set(b"\t\n\f\r\x1b"))


@dataclass(frozen=True, slots=True)
class LevelEntry:
    """``entry`` lies directly at the level; its ``name`` and ``path`` are exact."""

    name: bytes
    path: bytes
    entry: FileEntry


@dataclass(frozen=True, slots=True)
class Level:
    """Directories in front. ``cursor`` is there while more may follow."""

    entries: list[LevelEntry]
    cursor: str | None


async def level_of(requester: Requester, key: str, path: bytes, cursor: str | None) -> Level:
    """The entries directly below ``path``, as far as up to 10,000 tell; then go on.

    Raises NotFoundError.
    """
    told = wire_path(path)
    found: list[LevelEntry] = []
    for _ in range(_MAX_PAGES):
        listing = ListFiles(
            key=key, path=told.path, path_bytes=told.path_bytes, cursor=cursor, limit=_PAGE
        )
        page = await requester.ask(LIST_FILES, listing)
        found += [one for entry in page.entries if (one := _child(entry, path)) is not None]
        cursor = page.cursor
        if cursor is None or len(found) >= _ENOUGH:
            break
    found.sort(key=lambda one: (one.entry.kind != "directory", one.name))
    return Level(found, cursor)


def _child(entry: FileEntry, path: bytes) -> LevelEntry | None:
    """``entry`` where it lies directly below ``path``."""
    own = exact_path(entry)
    below = own[len(path) :].lstrip(b"/") if path else own
    if not below or b"/" in below:
        return None
    return LevelEntry(below, own, entry)


def exact_path(entry: FileEntry) -> bytes:
    """The path of an entry, whatever bytes it has."""
    return entry.path.encode() if entry.path_bytes is None else entry.path_bytes


def is_text(data: bytes) -> bool:
    """Whether a person can read ``data``: it is UTF-8 (but for a cut end) without controls."""
    if data.translate(None, _CONTROLS) != data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True
