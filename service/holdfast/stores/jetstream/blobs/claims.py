"""Claims of chunks that no record names: one record for each copy that somebody wants to remove.

It lies beside the records of blobs, on a subject whose last token is that of the copy's chunks: so
chunks and claim are looked at in one request, at one moment. Each step of it is a compare-and-set:
a claimant may remove the copy only once the claim says so, and a writer that counts on the copy
takes a claim that does not say so yet. A writer that puts a living blob anew from several chunks
claims them before the first, for then a batch can tell whether anybody else has.

Why: docs/decisions.md, "Bytes that no record names are claimed before they go".
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from holdfast.domain.collection import ClaimState
from holdfast.errors import CorruptError, OutcomeUnknownError, UnavailableError
from holdfast.stores.jetstream.blobs.meta import claim_record, claim_subject, decode_meta
from holdfast.transport.jetstream_messages import (
    EXPECTED_SUBJECT_SEQUENCE,
    MSG_ID,
    ROLLUP,
    BatchMessage,
    RefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.transport.jetstream import JetStream


class CopyClaim(NamedTuple):
    """A claim as the leader has it: its sequence, and when it was written by the leader's clock."""

    sequence: int
    state: ClaimState
    at: datetime | None


class ObjectClaims:
    """The claims in one bucket."""

    def __init__(self, jetstream: JetStream, bucket: str, new_id: Callable[[], str]) -> None:
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._new_id = new_id

    async def find(self, nuid: str) -> CopyClaim | None:
        """The claim of a copy, in any state. Raises CorruptError."""
        message = await self._js.last_message(self._stream, claim_subject(self._bucket, nuid))
        if message is None:
            return None
        try:
            state = ClaimState(decode_meta(message.data).claim)
        except ValueError as error:
            raise CorruptError("the record of a claim cannot be read") from error
        return CopyClaim(message.sequence, state, message.stored_at)

    async def write(self, nuid: str, state: ClaimState, expected: int) -> int | None:
        """Put a claim in ``state`` in the place of the one at ``expected`` (0: none).

        Its sequence; None: there is another. Raises UnavailableError, OutcomeUnknownError.
        """
        headers = {**_headers(expected), MSG_ID: self._new_id()}
        record = claim_record(self._bucket, nuid, state)
        try:
            subject = claim_subject(self._bucket, nuid)
            return (await self._js.publish(subject, record, headers)).seq
        except RefusedError as refused:
            if not refused.conflict:
                raise refused.translate() from refused
            return None

    async def end(self, nuid: str, sequence: int) -> None:
        """Remove the claim, if it is no later than the one at ``sequence``."""
        subject = claim_subject(self._bucket, nuid)
        await self._js.purge(self._stream, subject, up_to=sequence)

    async def revoke(self, nuid: str) -> None:
        """Take a claim whose copy is not being removed yet. Others may be first to change it."""
        found = await self.find(nuid)
        if found is None or found.state is ClaimState.GOING:
            return
        sequence = found.sequence
        if found.state is ClaimState.CLAIMED:
            written = await self.write(nuid, ClaimState.REVOKED, sequence)
            if written is None:
                return
            sequence = written
        with suppress(UnavailableError, OutcomeUnknownError):  # the next that looks does
            await self.end(nuid, sequence)


def revocation(bucket: str, nuid: str, expected: int) -> BatchMessage:
    """The message that revokes the claim at ``expected``, or is refused with all of its batch."""
    record = claim_record(bucket, nuid, ClaimState.REVOKED)
    return BatchMessage(claim_subject(bucket, nuid), record, _headers(expected))


def _headers(expected: int) -> dict[str, str]:
    return {ROLLUP: "sub", EXPECTED_SUBJECT_SEQUENCE: str(expected)}
