"""Keys that links are signed with: several at once, so that one can follow another.

A key holds from ``since`` until ``until``. Once it has ended no link that it signed is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from holdfast.errors import InvalidError, UnavailableError

MAX_KEYS: Final = 256
KeyId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
Secret = Annotated[str, Meta(min_length=16, max_length=256)]
ZonedTime = Annotated[datetime, Meta(tz=True)]


class LinkKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``secret`` is known to those who sign and those who verify, and to nobody else."""

    id: KeyId
    secret: Secret
    since: ZonedTime
    until: ZonedTime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether links that it signs are valid at ``now``."""
        return self.since <= now and (self.until is None or now < self.until)


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: Annotated[list[LinkKey], Meta(max_length=MAX_KEYS)]


def read_keys(text: bytes) -> tuple[LinkKey, ...]:
    """The keys of a file. Raises InvalidError, which repeats nothing of what is in it."""
    try:
        keys = msgspec.json.decode(text, type=_KeyFile).keys
    except (msgspec.MsgspecError, UnicodeDecodeError):
        msg = "it is not a file of link keys, as `holdfast link-key create` writes it"
        raise InvalidError(msg) from None
    if len({key.id for key in keys}) < len(keys):
        msg = "two link keys have the same id"
        raise InvalidError(msg)
    return tuple(keys)


def write_keys(keys: Sequence[LinkKey]) -> bytes:
    """The bytes that `read_keys` reads."""
    return msgspec.json.format(msgspec.json.encode(_KeyFile([*keys])), indent=2) + b"\n"


def secrets_at(keys: Sequence[LinkKey], now: datetime) -> dict[str, str]:
    """The secrets of the keys that hold, by their ids."""
    return {key.id: key.secret for key in keys if key.holds(now)}


def signing_key(keys: Sequence[LinkKey], now: datetime) -> LinkKey:
    """The newest key that holds. Raises UnavailableError."""
    holding = [key for key in keys if key.holds(now)]
    if not holding:
        msg = "no link key holds now: make one with `holdfast link-key create`"
        raise UnavailableError(msg)
    return max(holding, key=lambda key: (key.since, key.id))
