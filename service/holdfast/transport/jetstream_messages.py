"""The headers that JetStream takes, and its answers: messages, acks and refusals.

Nothing here sends anything. Error codes are those of nats-server's ``errors.json``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime  # at run time too: msgspec decodes by the annotations
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import HoldfastError, OutcomeUnknownError, QuotaExceededError, UnavailableError
from holdfast.protocol.headers import STATUS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.transport.message import Message

MSG_ID: Final = "Nats-Msg-Id"
EXPECTED_SUBJECT_SEQUENCE: Final = "Nats-Expected-Last-Subject-Sequence"
ROLLUP: Final = "Nats-Rollup"
TTL: Final = "Nats-TTL"
SEQUENCE: Final = "Nats-Sequence"
SUBJECT: Final = "Nats-Subject"
TIME_STAMP: Final = "Nats-Time-Stamp"
PENDING: Final = "Nats-Num-Pending"
END_OF_BATCH: Final = "204"
NO_SUCH_MESSAGE: Final = "404"
BATCH_ID: Final = "Nats-Batch-Id"
BATCH_SEQUENCE: Final = "Nats-Batch-Sequence"
BATCH_COMMIT: Final = "Nats-Batch-Commit"

WRONG_LAST_SEQUENCE: Final = 10071
WRITE_IN_FLIGHT: Final = 10164
STREAM_NOT_FOUND: Final = 10059
NO_MESSAGE: Final = 10037
DUPLICATE_IN_BATCH: Final = 10201
UNKNOWN_OUTCOME: Final = 10158
BATCHES_DISABLED: Final = 10174
_BATCH_INCOMPLETE: Final = 10176
_TOO_MANY_BATCHES: Final = 10210
_TOO_MANY_REQUESTS: Final = 10167
TURNED_AWAY: Final = frozenset({_BATCH_INCOMPLETE, _TOO_MANY_BATCHES, _TOO_MANY_REQUESTS})
"""The server has too many other batches, or more waiting for the stream than it takes (128 MiB or
100,000 messages), or knows the beginning of a batch no more: nothing was applied, it is its turn
soon."""

NOT_NOW: Final = frozenset({10007, 10008, 10009, 10118})
"""No leader, no quorum or not enough of the cluster up at the moment: nothing was applied.

But any server of a stream may say so of a purge, and the leader have taken it."""

_TOLD_SEQUENCE: Final = re.compile(r"wrong last sequence: (\d{1,20})", re.ASCII)
_FULL: Final = frozenset({10047, 10051, 10077, 10122, 10023, 10054})


class ApiError(msgspec.Struct, frozen=True):
    """The ``error`` of a JetStream API answer."""

    code: int = 500
    err_code: int = 0
    description: str = ""


class RefusedError(Exception):
    """JetStream refused: nothing was applied. ``conflict`` when a condition did not hold."""

    def __init__(self, error: ApiError, *, certain: bool) -> None:
        """``certain`` is False when an earlier attempt of the same publish timed out."""
        super().__init__(error.description)
        self.error = error
        self.certain = certain

    @property
    def conflict(self) -> bool:
        """Whether the expected sequence was not the last one (10071), or may not be (10164)."""
        return self.error.err_code in {WRONG_LAST_SEQUENCE, WRITE_IN_FLIGHT}

    @property
    def repeated(self) -> bool:
        """Whether a batch was refused because one of its messages is stored already."""
        return self.error.err_code == DUPLICATE_IN_BATCH

    @property
    def last_sequence(self) -> int | None:
        """That of the subject whose condition did not hold (in a batch: of the first), if told."""
        told = _TOLD_SEQUENCE.fullmatch(self.error.description)
        is_wrong = self.error.err_code == WRONG_LAST_SEQUENCE
        return int(told[1]) if told is not None and is_wrong else None

    def translate(self) -> HoldfastError:
        """The failure to report when no condition was expected to fail."""
        if not self.certain:
            return OutcomeUnknownError("the store did not say whether it has the data")
        if self.error.err_code in _FULL:
            return QuotaExceededError("the store is full")
        return UnavailableError("the store refused the write")


class ApiRefusedError(UnavailableError):
    """JetStream refused an API call; ``detail`` is what it said, ``err_code`` its own number."""

    def __init__(self, detail: str = "", *, err_code: int = 0) -> None:
        super().__init__(detail)
        self.err_code = err_code


class NotNowError(UnavailableError):
    """JetStream has no leader for it at the moment, or too few servers."""


class DeniedError(ApiRefusedError):
    """The server denies the request to this user: asking again will not help."""


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Any answer, as far as it tells of an error."""

    error: ApiError | None = None


class Ack(msgspec.Struct, frozen=True):
    """JetStream has the message, under ``seq``. ``duplicate``: it had it already.

    ``again``, which no server sends: an earlier attempt may have been stored, too.
    """

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    again: bool = False
    error: ApiError | None = None


class _StoredJson(msgspec.Struct, frozen=True):
    subject: str
    seq: int
    data: str = ""
    hdrs: str = ""
    time: str = ""


class GetAnswer(msgspec.Struct, frozen=True):
    """The answer of ``STREAM.MSG.GET``."""

    message: _StoredJson | None = None
    error: ApiError | None = None


class _Peer(msgspec.Struct, frozen=True):
    active: int = 0


class _Peers(msgspec.Struct, frozen=True):
    replicas: list[_Peer] | None = None


class StreamState(msgspec.Struct, frozen=True):
    """A stream's state. ``subjects`` are those that were asked for, with their messages.

    ``created`` tells the stream from another of its name.
    """

    messages: int = 0
    first_sequence: int = msgspec.field(default=0, name="first_seq")
    last_sequence: int = msgspec.field(default=0, name="last_seq")
    num_subjects: int = 0
    subjects: dict[str, int] | None = None
    created: str = ""


class InfoAnswer(msgspec.Struct, frozen=True):
    """The answer of ``STREAM.INFO``: how much there is, and when the leader heard of the others.

    ``total`` says how many subjects there are, of which ``state`` may have some.
    """

    state: StreamState = StreamState()
    total: int = 0
    created: str = ""
    cluster: _Peers | None = None
    error: ApiError | None = None

    def has_majority(self, seconds: float) -> bool:
        """Whether most, the leader included, were heard of within the last ``seconds``."""
        peers = (self.cluster.replicas if self.cluster is not None else None) or []
        # 0 is one that the leader has never heard of.
        heard = sum(0 < peer.active <= seconds * 1e9 for peer in peers)
        return heard + 1 > (len(peers) + 1) / 2


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as the stream has it; ``stored_at`` by the leader's clock, where it tells."""

    subject: str
    sequence: int
    data: bytes | memoryview
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    stored_at: datetime | None = None

    @property
    def time(self) -> datetime:
        """When it was stored, whoever told."""
        return self.stored_at or datetime.fromisoformat(self.headers[TIME_STAMP])


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """One message of an atomic batch."""

    subject: str
    data: bytes | memoryview
    headers: Mapping[str, str]


def read_failure(error: ApiError) -> HoldfastError:
    """The failure to report when a read was refused."""
    if error.err_code == STREAM_NOT_FOUND:
        return UnavailableError("the bucket is not there; `holdfast admin init` makes it")
    return UnavailableError(f"the store refused a read: {error.description}")


def stored_or_none(message: Message) -> StoredMessage | None:
    """The stored message, None if there is none. Raises UnavailableError."""
    stored = stored_or_status(message)
    if isinstance(stored, StoredMessage):
        return stored
    if stored == NO_SUCH_MESSAGE:
        return None
    raise UnavailableError(f"the store refused a read ({stored})")


def stored_or_status(message: Message) -> StoredMessage | str:
    """The stored message, or the inline status that came in its place."""
    headers = message.headers
    sequence = headers.get(SEQUENCE)
    if sequence is None or (STATUS in headers and SUBJECT not in headers):
        return headers.get(STATUS, "no status")
    return StoredMessage(headers.get(SUBJECT, ""), int(sequence), message.data, headers)
