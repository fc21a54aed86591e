"""Whether a bucket is there and keeps its messages, asked before a worker serves.

A bucket is never made here: one that was found missing may be on its way back. `holdfast admin
init` refuses what is refused here, but for what it sets itself.

Every setting that a stream has in nats-server 2.15 is in one of three places: it is checked here,
``HARMLESS`` says why it need not be, or it is a matter of the store's URL (``LAYOUT``).

Why: docs/decisions.md, "Every setting of a stream is checked, the URL's matter, or harmless for a
reason".
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import not_
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import NotFoundError, UnavailableError
from holdfast.stores.jetstream.buckets.readiness import ask_api

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.transport.jetstream import JetStream

DUPLICATE_WINDOW_NS: Final = 120 * 10**9
"""A repeated publish is known again for so long. A write is repeated for 20 seconds (a worker's
patience), and lies in buffers on the way for as long as a worker or a server is paused."""
MAX_FIRST_SEQUENCE: Final = 2**53
"""Clients in JavaScript read sequences, and the chunk index holds them, as JSON numbers."""


@dataclass(frozen=True, slots=True)
class Required:
    """A setting that a stream must have, and the advice if it has another.

    ``fits`` gets what the server tells; None where it leaves the setting out, which is off.
    """

    field: str
    fits: Callable[[Any], bool]
    advice: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings a kind of bucket must have; ``{}`` in ``subjects`` is its name."""

    subjects: tuple[str, ...]
    required: tuple[Required, ...]


def _is(*wanted: Any) -> Callable[[Any], bool]:
    return lambda found: found in wanted


_INIT: Final = "`holdfast admin init` sets it"
_ANOTHER: Final = "that cannot be changed, so make another bucket"
# A setting that changes others, or makes them impossible, is asked about first.
_WRITABLE: Final = (
    Required("sealed", not_, "a sealed bucket takes no writes"),
    Required("mirror", not_, "a mirror takes no writes: remove the mirror to make it a bucket"),
    Required(
        "sources", not_, "messages of another stream would replace stored ones: remove the sources"
    ),
    Required("allow_msg_counter", not_, f"it takes counters only; {_ANOTHER}"),
    Required("deny_purge", not_, f"deleted messages could not be removed; {_ANOTHER}"),
    Required(
        "persist_mode",
        _is(None, "default"),
        f"acknowledged writes may not be on the disk; {_ANOTHER}",
    ),
    Required(
        "subject_transform", not_, "messages would go to other subjects: remove the transform"
    ),
    Required(
        "republish",
        not_,
        "all messages would be sent to the listeners of that subject: remove the republish",
    ),
    Required(
        "no_ack", not_, "nobody would know what is stored: remove it, so that writes are answered"
    ),
    Required(
        "max_msg_size", _is(None, -1), "messages beyond that size are refused: remove the limit"
    ),
    Required(
        "duplicate_window",
        lambda found: (found or 0) >= DUPLICATE_WINDOW_NS,
        "a write that is repeated after that time is stored twice: set it to 2 minutes or more",
    ),
    Required(
        "first_seq",
        lambda found: (found or 0) <= MAX_FIRST_SEQUENCE,
        f"its sequences are larger than clients can count; {_ANOTHER}",
    ),
)
_KEEPS: Final = (
    Required(
        "retention", _is("limits"), "messages would vanish when they are read: set it to limits"
    ),
    Required("max_age", not_, "messages would vanish after that time: remove the limit"),
    Required(
        "max_msgs", _is(None, -1), "messages would vanish beyond that count: remove the limit"
    ),
    Required("discard", _is("new"), "messages would vanish when it is full: set discard to new"),
    Required("discard_new_per_subject", not_, "stored messages could not be replaced: remove it"),
)
_DIRECT: Final = Required("allow_direct", bool, "it must allow direct reads")
_HEADERS: Final = (
    _DIRECT,
    Required("allow_rollup_hdrs", bool, "it must allow roll-ups, as every bucket does"),
    Required("allow_msg_ttl", bool, f"it must allow message TTLs; {_INIT}"),
)
OBJECT_SETTINGS: Final = Settings(
    ("$O.{}.C.>", "$O.{}.M.>"),
    (
        *_WRITABLE,
        *_KEEPS,
        Required(
            "max_msgs_per_subject",
            _is(None, -1),
            "chunks of a blob share a subject, and the first ones would vanish: remove the limit",
        ),
        *_HEADERS,
    ),
)
RECORD_SETTINGS: Final = Settings(
    ("$KV.{}.>",),
    (
        *_WRITABLE,
        *_KEEPS,
        *_HEADERS,
        Required("allow_atomic", bool, f"it must allow atomic batches; {_INIT}"),
        Required("max_msgs_per_subject", _is(1), "it must keep a history of one"),
    ),
)
LOG_SETTINGS: Final = Settings(
    ("$HF.{}.>",),
    (
        *_WRITABLE,
        *_KEEPS,
        Required(
            "max_msgs_per_subject",
            _is(None, -1),
            "entries of a log share a subject, and the first ones would vanish: remove the limit",
        ),
        _DIRECT,
        Required("allow_rollup_hdrs", not_, f"one message could empty a log; {_INIT}"),
        Required("allow_msg_ttl", not_, f"an entry could vanish by itself; {_ANOTHER}"),
    ),
)
_KINDS: Final = {"OBJ": OBJECT_SETTINGS, "KV": RECORD_SETTINGS, "HF": LOG_SETTINGS}
LAYOUT: Final = frozenset({"storage", "num_replicas", "max_bytes", "placement"})
"""Settings that the store's URL may state: see ``domain.store_state``."""
HARMLESS: Final = {
    "name": "it is how the stream was found",
    "description": "words for people",
    "metadata": "words for programs, of which none is holdfast",
    "max_consumers": "nothing here makes consumers",
    "consumer_limits": "nothing here makes consumers",
    "compression": "reads give the bytes that were written",
    "mirror_direct": "without a mirror it means nothing",
    "deny_delete": "nothing here removes single messages",
    "subject_delete_marker_ttl": "a marker is read as a missing record",
    "allow_msg_schedules": "only messages that ask for it, and a caller's headers never get there",
    "allow_batched": "only messages that ask for it, and a caller's headers never get there",
}
"""Settings that may be as they like, and why."""


def unfit(config: Mapping[str, Any]) -> str | None:
    """The setting in a stream's ``config`` that will not do, and what to do; None: all fits.

    Its name tells which bucket it is, and of which kind.
    """
    kind, _, bucket = config["name"].partition("_")
    settings = _KINDS[kind]
    for one in settings.required:
        found = config.get(one.field)
        if not one.fits(found):
            return f"{one.field}={found!r}; {one.advice}"
    for subject in (each.format(bucket) for each in settings.subjects):
        subjects = config.get("subjects") or []
        if not any(_covers(pattern, subject) for pattern in subjects):
            return f"subjects={subjects!r}; it must take {subject}: add it"
    return None


def _covers(pattern: str, subject: str) -> bool:
    """Whether every subject that ``subject`` matches is one that ``pattern`` does."""
    ours, theirs = subject.split("."), pattern.split(".")
    for own, wild in zip(ours, theirs, strict=False):
        if wild == ">":
            return True
        if own == ">" or wild not in ("*", own):
            return False
    return len(ours) == len(theirs)


async def check_bucket(js: JetStream, bucket: str, stream: str) -> None:
    """Raises UnavailableError with a sentence that says what to change; NotReadyError."""
    try:
        answer = await ask_api(js, f"STREAM.INFO.{stream}")
    except NotFoundError as error:
        msg = f"the bucket {bucket!r} is not there; `holdfast admin init` makes it"
        raise UnavailableError(msg) from error
    fault = unfit(answer["config"])
    if fault is not None:
        raise UnavailableError(f"the bucket {bucket!r} has {fault}")
