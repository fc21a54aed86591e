"""The files of older systems, read as they are on disk, and checked where they can be."""

from __future__ import annotations

import base64
import binascii
import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.domain.digest import Digest, is_digest
from holdfast.errors import CorruptError, InvalidError

STATE_FILE: Final = "blob_state.base64.json"
DATA_FILE: Final = "data.raw"
METADATA: Final = "_metadata"
_STATE_LINE: Final = "BLOB_BASE64_"
_MAX_STATE_BYTES: Final = 16 * 1024 * 1024
_OK: Final = 0


@dataclass(frozen=True, slots=True)
class OldBlob:
    """A file with the bytes of a blob, which the older system knew as ``name``."""

    path: Path
    name: str
    size: int


def digest_of_file(path: Path) -> Digest:
    """Read all of it. Raises OSError."""
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def hashed_files(directory: Path) -> Iterator[OldBlob | OSError]:
    """Files at and below ``directory`` whose name is a SHA-256, in the order of their paths.

    Links are not followed. A directory or file that cannot be read is an error, and hides no other.
    """
    unread: list[OSError] = []
    for parent, directories, files in directory.walk(on_error=unread.append):
        directories.sort()
        for name in filter(is_digest, sorted(files)):
            path = parent / name
            try:
                status = path.lstat()
            except OSError as error:
                unread.append(error)
                continue
            if stat.S_ISREG(status.st_mode):
                yield OldBlob(path, name, status.st_size)
    yield from unread


class _OldCode(msgspec.Struct):
    code: int


class _OldStep(msgspec.Struct):
    status: _OldCode


class _OldStatus(msgspec.Struct):
    log: list[_OldStep | None] = []
    index: int = 0


class _OldState(msgspec.Struct):
    location: str
    status: _OldStatus | None = None


def named_blobs(directory: Path) -> Iterator[OldBlob | CorruptError | OSError]:
    """The blobs of a named blob server that were whole, by the order of their ids.

    ``<id>/data.raw`` has the bytes, and the state file beside it the name and what became of it.
    One that was pending, or had failed, is passed over, as that server did; one whose state cannot
    be read is an error, and hides no other. Raises OSError.
    """
    ids = [path for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()]
    for home in sorted(ids, key=lambda path: int(path.name)):
        try:
            blob = _named_blob(home)
        except (CorruptError, OSError) as error:
            yield error
            continue
        if blob is not None:
            yield blob


def _named_blob(home: Path) -> OldBlob | None:
    """The blob in ``home``, if one was whole there. Raises CorruptError, OSError."""
    state_file, data = home / STATE_FILE, home / DATA_FILE
    if not state_file.is_file():
        return None
    state = _old_state(state_file)
    if not _was_whole(state) or not data.is_file():
        return None
    return OldBlob(data, state.location, data.stat().st_size)


def _old_state(path: Path) -> _OldState:
    """Raises CorruptError, OSError."""
    if path.stat().st_size > _MAX_STATE_BYTES:
        raise CorruptError(f"{path} is too large to be the state of a blob")
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith(_STATE_LINE):
            _, _, text = line.partition(":")
            try:
                return msgspec.json.decode(base64.b64decode(text, validate=True), type=_OldState)
            except (binascii.Error, msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise CorruptError(f"{path} cannot be read: {error}") from error
    raise CorruptError(f"{path} has no state in it")


def _was_whole(state: _OldState) -> bool:
    """Whether its last step ended well. One without steps has only been made."""
    if state.status is None or not state.status.log:
        return False
    last = state.status.log[(state.status.index - 1) % len(state.status.log)]
    return last is not None and last.status.code == _OK


@dataclass(frozen=True, slots=True)
class OldSave:
    """A save of a state, in JSON, and up to which command it goes."""

    state: bytes
    last_applied_index: int
    last_applied_hlc: str
    state_hash: str | None


class _OldSaveFile(msgspec.Struct):
    state: msgspec.Raw
    last_applied_index: int = 0
    last_applied_hlc: str | None = None
    state_hash: str | None = None


def old_save(path: Path) -> OldSave:
    """A ``snapshot.json``. Raises InvalidError, OSError."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_OldSaveFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} is not a save of a state: {error}") from error
    return OldSave(
        bytes(found.state),
        found.last_applied_index,
        found.last_applied_hlc or "",
        found.state_hash,
    )


def metadata_beside(archive: Path) -> dict[str, Any]:
    """The JSON of ``archive`` in ``_metadata``; empty where there is none.

    Raises InvalidError, OSError.
    """
    stem = archive.name.removesuffix(".zst").removesuffix(".tar")
    for name in (stem, archive.name):
        path = archive.parent / METADATA / f"{name}.json"
        if path.is_file():
            try:
                return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise InvalidError(f"{path} cannot be read: {error}") from error
    return {}


def old_labels(metadata: dict[str, Any]) -> dict[str, str]:
    """The ``labels`` of an archive: an object, or a list of ``key:value``.

    Fields of holdfast's own records are no labels.
    """
    labels = metadata.get("labels", {})
    if isinstance(labels, list):
        pairs = [str(label).partition(":") for label in labels]
        labels = {key: value for key, _, value in pairs}
    if not isinstance(labels, dict):
        raise InvalidError("the labels beside the archive are neither an object nor a list")
    return {str(key): str(value) for key, value in labels.items() if key not in _FIELDS}


_FIELDS: Final = frozenset({"digest", "files", "hash", "size"})


def told_digest(metadata: dict[str, Any]) -> str | None:
    """The SHA-256 of an archive, in lower case, where its metadata have it under that name."""
    told = metadata.get("sha256")
    return told.lower() if isinstance(told, str) and is_digest(told.lower()) else None
