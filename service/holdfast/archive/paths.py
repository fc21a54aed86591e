"""Paths as people and tar files write them, and as snapshots hold them.

A snapshot's paths are bytes relative to the app's directory, ``b""`` being that itself: no leading
``./``, no trailing ``/``, no ``.`` or ``..``. Everything that comes from outside passes here.
"""

from __future__ import annotations

from typing import Final

from holdfast.errors import InvalidError, TooLargeError
from holdfast.form.entries import MAX_COMPONENT_BYTES, MAX_PATH_BYTES

_SLASH: Final = ord("/")
_SPECIAL: Final = frozenset(b"/.")


def parse_path(path: str | bytes) -> bytes:
    """``path`` in stored form. ``./a//b/`` becomes ``a/b``; ``.`` and ``/.`` parts are dropped.

    Text is UTF-8, or what ``os.fsdecode`` made of bytes that are not. Raises InvalidError for an
    absolute path, for ``..`` and for NUL; TooLargeError beyond 4,096 bytes or 255 in one name.
    """
    raw = _to_bytes(path)
    if _is_plain(raw):
        return raw
    if raw.startswith(b"/"):
        msg = f"the path {path_text(raw)!r} is absolute; paths are relative to the app's directory"
        raise InvalidError(msg)
    if b"\0" in raw:
        raise InvalidError(f"the path {path_text(raw)!r} contains NUL")
    names = [name for name in raw.split(b"/") if name not in {b"", b"."}]
    if b".." in names:
        raise InvalidError(f"the path {path_text(raw)!r} contains '..'")
    parsed = b"/".join(names)
    if len(parsed) > MAX_PATH_BYTES or any(len(name) > MAX_COMPONENT_BYTES for name in names):
        msg = (
            f"the path {path_text(raw)[:64]!r}... is longer than {MAX_PATH_BYTES} bytes, "
            f"or a name in it than {MAX_COMPONENT_BYTES}"
        )
        raise TooLargeError(msg)
    return parsed


def _is_plain(path: bytes) -> bool:
    """Whether ``path`` surely needs no change: most do not, and tars have a million of them."""
    return (
        0 < len(path) <= MAX_COMPONENT_BYTES
        and path[0] not in _SPECIAL
        and path[-1] != _SLASH
        and b"/." not in path
        and b"//" not in path
        and b"\0" not in path
    )


def _to_bytes(path: str | bytes) -> bytes:
    if isinstance(path, bytes):
        return path
    try:
        return path.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidError("the path is not text that UTF-8 can hold") from error


def path_text(path: bytes) -> str:
    """``path`` for people: U+FFFD stands for what is not UTF-8."""
    return path.decode(errors="replace")


def is_below(path: bytes, under: bytes) -> bool:
    """Whether ``path`` is ``under`` or lies in it. Everything lies in ``b""``."""
    return not under or path == under or path.startswith(under + b"/")


def parent_of(path: bytes) -> bytes:
    """The directory that holds ``path``; that of a name at the top is ``b""``."""
    return path.rpartition(b"/")[0]
