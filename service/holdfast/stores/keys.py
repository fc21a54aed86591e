"""The spelling of record keys and of changes, checked before a store's medium sees them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from holdfast.errors import InvalidError
from holdfast.stores.record_ports import MAX_BATCH, MAX_CHANGES, MAX_GET_MANY, Delete, Put

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from holdfast.stores.record_ports import Change

MAX_KEY_CHARS: Final = 2048
"""A NATS subject with the key must stay far below the 4 KiB of a protocol line."""

_KEY: Final = re.compile(r"[A-Za-z0-9_=-]+(?:\.[A-Za-z0-9_=-]+)*", re.ASCII)


def is_record_key(text: str) -> bool:
    """Whether it is tokens of ``[A-Za-z0-9_=-]`` joined by dots."""
    return len(text) <= MAX_KEY_CHARS and _KEY.fullmatch(text) is not None


def check_record_key(key: str) -> None:
    """Raises InvalidError unless ``key`` is tokens of ``[A-Za-z0-9_=-]`` joined by dots."""
    if not is_record_key(key):
        msg = "a record key is tokens of A-Z a-z 0-9 _ = - joined by dots, at most 2,048"
        raise InvalidError(msg)


def check_prefix(prefix: str) -> None:
    """Raises InvalidError unless ``prefix`` is empty or could be a key."""
    if prefix:
        check_record_key(prefix)


def check_batch(changes: Sequence[Change]) -> None:
    """Raises InvalidError unless ``changes`` are as many as may be, each of another key."""
    if not 1 <= len(changes) <= MAX_BATCH:
        raise InvalidError(f"a batch has 1 to {MAX_BATCH} changes")
    for change in changes:
        check_change(change)
    if len({change.key for change in changes}) < len(changes):
        raise InvalidError("a batch changes each record once")


def check_change(change: Change) -> None:
    """Raises InvalidError for a key that is none, and for a grave that looks like a removal."""
    check_record_key(change.key)
    if isinstance(change, Put) and change.grave and not change.value:
        raise InvalidError("a grave has a value")


def check_limit(limit: int) -> None:
    """Raises InvalidError unless so many changes may be read at once."""
    if not 1 <= limit <= MAX_CHANGES:
        raise InvalidError(f"1 to {MAX_CHANGES} changes can be read at once")


def check_many(keys: Sequence[str]) -> tuple[str, ...]:
    """``keys``, each once. Raises InvalidError for one that is none, and for too many."""
    if len(keys) > MAX_GET_MANY:
        raise InvalidError(f"at most {MAX_GET_MANY} records can be read at once")
    for key in keys:
        check_record_key(key)
    return tuple(dict.fromkeys(keys))


def is_key_below(key: str, prefix: str) -> bool:
    """Whether ``key`` has the tokens of ``prefix`` and more after them."""
    return not prefix or key.startswith(prefix + ".")


def has_prefix(key: str, prefix: str) -> bool:
    """Whether ``key`` starts with the tokens of ``prefix``; the empty prefix fits every key."""
    return not prefix or key == prefix or key.startswith(prefix + ".")


class CheckedChanges(ABC):
    """The changes of a RecordStore, which makes all of them in the same way."""

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expected: int,
        ttl: timedelta | None = None,
        grave: bool = False,
    ) -> int:
        """See `RecordStore.put`."""
        change = Put(key=key, value=value, expected=expected, ttl=ttl, grave=grave)
        check_change(change)
        return (await self._change([change]))[0]

    async def delete(self, key: str, *, expected: int) -> None:
        """See `RecordStore.delete`."""
        check_record_key(key)
        await self._change([Delete(key=key, expected=expected)])

    async def batch(self, changes: Sequence[Change]) -> list[int]:
        """See `RecordStore.batch`."""
        check_batch(changes)
        revisions = await self._change(changes)
        return [
            0 if isinstance(change, Delete) else revision
            for change, revision in zip(changes, revisions, strict=True)
        ]

    @abstractmethod
    async def _change(self, changes: Sequence[Change]) -> list[int]:
        """Make all of them or none; their revisions, anything for a deletion."""
