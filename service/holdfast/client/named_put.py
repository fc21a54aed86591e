"""A put of a name: what is said beside the bytes, and the verbs that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from msgspec import structs

from holdfast.client.upgrades import UPGRADE
from holdfast.domain.blob_names import (
    check_blob_name,
    check_name_labels,
    quote_labels,
    quote_text,
)
from holdfast.domain.digest import digest_of, parse_digest
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from holdfast.protocol.names import (
    CREATE_NAME,
    REPLACE_NAME,
    CreateName,
    NameStored,
    OpenName,
    ReplaceName,
)
from holdfast.protocol.times import wire_time
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from holdfast.client.requests import Requester
    from holdfast.client.upload import Upload, Uploaded

Mode = Literal["create", "replace"]
T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 0.02
_MAX_WAIT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedWrite:
    """The description of a named blob beside the bytes, checked."""

    name: str
    media_type: str
    digest: str | None
    labels: dict[str, str]
    expires: str | None
    if_version: int | None = None
    if_digest: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        type_: str,
        digest: str | None,
        labels: Mapping[str, str] | None,
        expires_at: datetime | None,
        *,
        if_version: int | None = None,
        if_digest: str | None = None,
    ) -> NamedWrite:
        """Raises InvalidError."""
        check_name_labels(labels or {})
        return cls(
            name=check_blob_name(name),
            media_type=type_,
            digest=None if digest is None else parse_digest(digest),
            labels=dict(labels or {}),
            expires=_expires(expires_at),
            if_version=if_version,
            if_digest=None if if_digest is None else parse_digest(if_digest),
        )

    def replacing(self, digest: str) -> ReplaceName:
        """Beside the bytes ``digest``."""
        return ReplaceName(**structs.asdict(self.creating(digest)))

    def creating(self, digest: str) -> CreateName:
        """Beside the bytes ``digest``."""
        return CreateName(
            quoted_name=quote_text(self.name),
            digest=self.digest or digest,
            type=self.media_type,
            quoted_labels=quote_labels(self.labels) or None,
            expires=self.expires,
            if_version=self.if_version,
            if_digest=self.if_digest,
        )

    def opening(self, mode: Mode, size: int | None) -> OpenName:
        """For a streamed write of ``size`` bytes, where that is sure."""
        return OpenName(
            name=self.name,
            mode=mode,
            size=size,
            digest=self.digest,
            type=self.media_type,
            labels=self.labels,
            expires=self.expires,
            if_version=self.if_version,
            if_digest=self.if_digest,
        )


@dataclass(frozen=True, slots=True)
class NamedPut:
    """A put of a name, in the first of ``modes`` that it is in the state for."""

    requester: Requester
    write: NamedWrite
    modes: tuple[Mode, ...]

    async def whole(self, data: memoryview) -> NameStored:
        """See ``holdfast.client.put.PutSteps``."""
        digest = digest_of(data)

        async def ask(mode: Mode) -> NameStored:
            if mode == "create":
                return await self.requester.ask(CREATE_NAME, self.write.creating(digest), data)
            return await self.requester.ask(REPLACE_NAME, self.write.replacing(digest), data)

        stored = await self._first(ask)
        if (stored.name, stored.digest, stored.size) != (self.write.name, digest, len(data)):
            msg = f"sent {digest}, but {stored.digest} was stored as {stored.name}"
            raise CorruptError(msg)
        return stored

    async def open(self, upload: Upload, size: int | None) -> Uploaded | None:
        """See ``holdfast.client.put.PutSteps``."""
        return await self._first(lambda mode: upload.open(self.write.opening(mode, size)))

    def result(self, uploaded: Uploaded) -> NameStored:
        """See ``holdfast.client.put.PutSteps``."""
        if uploaded.version is None:  # an old worker has taken the upload over
            raise UnavailableError(UPGRADE)
        return NameStored(
            name=self.write.name,
            digest=uploaded.digest,
            size=uploaded.size,
            version=uploaded.version,
        )

    async def _first(self, attempt: Callable[[Mode], Awaitable[T]]) -> T:
        """The result of ``attempt`` in a mode; each of several, while the name comes and goes.

        If several failed to the end, a conflict is raised: others have the name.
        """
        backoff = Backoff(
            _FIRST_WAIT_SECONDS,
            _MAX_WAIT_SECONDS,
            within_seconds=self.requester.timeout_seconds,
        )
        while True:
            failure: HoldfastError | None = None
            for mode in self.modes:
                try:
                    return await attempt(mode)
                except ConflictError as error:
                    failure = error
                except NotFoundError as error:
                    failure = failure or error
            if failure is not None and (len(self.modes) == 1 or not await backoff.wait()):
                raise failure


def _expires(at: datetime | None) -> str | None:
    if at is None:
        return None
    if at.tzinfo is None:
        msg = "the time at which a name expires needs a time zone"
        raise InvalidError(msg)
    try:
        return wire_time(at)
    except OverflowError as error:
        msg = "the time at which a name expires is out of range"
        raise InvalidError(msg) from error
