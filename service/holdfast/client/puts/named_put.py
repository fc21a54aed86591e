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
from holdfast.protocol.times import asked_time
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from holdfast.client.puts.upload import Upload, Uploaded
    from holdfast.client.requests import Requester

Mode = Literal["create", "replace"]
T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 0.02
_MAX_WAIT_SECONDS: Final = 1.0


def named_write(
    name: str,
    type_: str,
    digest: str | None,
    labels: Mapping[str, str] | None,
    expires_at: datetime | None,
    *,
    if_version: int | None = None,
    if_digest: str | None = None,
) -> OpenName:
    """The message beside the bytes of a named blob. Raises InvalidError."""
    check_name_labels(labels or {})
    return OpenName(
        name=check_blob_name(name),
        mode="create",
        digest=None if digest is None else parse_digest(digest),
        type=type_,
        labels=dict(labels or {}),
        expires=asked_time(expires_at),
        if_version=if_version,
        if_digest=None if if_digest is None else parse_digest(if_digest),
    )


@dataclass(frozen=True, slots=True)
class NamedPut:
    """A put of a name as ``write`` says, in the first of ``modes`` that it is in the state for."""

    requester: Requester
    write: OpenName
    modes: tuple[Mode, ...]

    async def whole(self, data: memoryview) -> NameStored:
        """See ``holdfast.client.puts.put.PutSteps``."""
        digest = digest_of(data)

        async def ask(mode: Mode) -> NameStored:
            if mode == "create":
                return await self.requester.ask(CREATE_NAME, _beside(self.write, digest), data)
            replacing = ReplaceName(**structs.asdict(_beside(self.write, digest)))
            return await self.requester.ask(REPLACE_NAME, replacing, data)

        stored = await self._first(ask)
        if (stored.name, stored.digest, stored.size) != (self.write.name, digest, len(data)):
            raise CorruptError(f"sent {digest}, but {stored.digest} was stored as {stored.name}")
        return stored

    async def open(self, upload: Upload, size: int | None) -> Uploaded | None:
        """See ``holdfast.client.puts.put.PutSteps``."""
        return await self._first(
            lambda mode: upload.open(structs.replace(self.write, mode=mode, size=size))
        )

    def result(self, uploaded: Uploaded) -> NameStored:
        """See ``holdfast.client.puts.put.PutSteps``."""
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


def _beside(write: OpenName, digest: str) -> CreateName:
    """``write`` as the headers beside the bytes ``digest``."""
    return CreateName(
        quoted_name=quote_text(write.name),
        digest=write.digest or digest,
        type=write.type,
        quoted_labels=quote_labels(write.labels) or None,
        expires=write.expires,
        if_version=write.if_version,
        if_digest=write.if_digest,
    )
