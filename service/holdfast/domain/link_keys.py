"""Keys that links are signed with: several at once, so that one can follow another.

A key holds from ``since`` until ``until``. Once it has ended no link that it signed is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from holdfast.domain.sigv4 import LinkTarget, sign
from holdfast.errors import InvalidError, UnavailableError

if TYPE_CHECKING:
    from holdfast.domain.link_targets import PublicUrl

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
        raise InvalidError("two link keys have the same id")
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
        raise UnavailableError("no link key holds now: make one with `holdfast link-key create`")
    return max(holding, key=lambda key: (key.since, key.id))


@dataclass(frozen=True, slots=True)
class LinkSigner:
    """Makes links with the ``keys`` that there are now, for where clients reach the gateways."""

    keys: Callable[[], Sequence[LinkKey]]
    public: PublicUrl

    def make(
        self, method: str, path: str, query: str, *, now: datetime, seconds: int
    ) -> tuple[str, datetime]:
        """A link and when it expires: with its key, where that ends before ``seconds`` are over.

        Raises UnavailableError (no key holds), InvalidError.
        """
        key = signing_key(self.keys(), now)
        now = now.replace(microsecond=0)
        if key.until is not None:
            seconds = min(seconds, max(1, (key.until - now) // timedelta(seconds=1)))
        path = self.public.base + path
        target = LinkTarget(method=method, host=self.public.host, path=path, query=query)
        signed = sign(target, key_id=key.id, secret=key.secret, now=now, seconds=seconds)
        return self.public.url(path, signed), now + timedelta(seconds=seconds)
