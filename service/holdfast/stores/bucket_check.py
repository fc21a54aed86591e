"""Whether a bucket is there and keeps what is put into it, asked before a worker serves.

A bucket is never made here: one that was found missing may be on its way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import NotFoundError, UnavailableError
from holdfast.stores.readiness import ask_api

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.transport.jetstream import JetStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    """A setting that a stream must have, and what to tell who has another."""

    field: str
    wanted: Any
    advice: str


_INIT: Final = "`holdfast admin init` sets it"
_KEEPS: Final = (
    Required(
        field="max_age",
        wanted=0,
        advice="what is stored would vanish after that time: remove the limit",
    ),
    Required(
        field="max_msgs",
        wanted=-1,
        advice="what is stored would vanish beyond that count: remove the limit",
    ),
    Required(
        field="discard",
        wanted="new",
        advice="what is stored would vanish when it is full: set discard to new",
    ),
)
# Sealing is asked about first: it changes other settings, too.
_HEADERS: Final = (
    Required(field="sealed", wanted=False, advice="a sealed bucket takes no writes"),
    Required(field="allow_direct", wanted=True, advice="it must allow direct reads"),
    Required(
        field="allow_rollup_hdrs",
        wanted=True,
        advice="it must allow roll-ups, as every bucket does",
    ),
    Required(field="allow_msg_ttl", wanted=True, advice=f"it must allow message TTLs; {_INIT}"),
)
OBJECT_SETTINGS: Final = (*_HEADERS, *_KEEPS)
RECORD_SETTINGS: Final = (
    *_HEADERS,
    Required(field="allow_atomic", wanted=True, advice=f"it must allow atomic batches; {_INIT}"),
    Required(field="max_msgs_per_subject", wanted=1, advice="it must keep a history of one"),
    *_KEEPS,
)


async def check_bucket(
    js: JetStream, bucket: str, stream: str, settings: Sequence[Required]
) -> None:
    """Raises UnavailableError with a sentence that says what to change; NotReadyError."""
    try:
        answer = await ask_api(js, f"STREAM.INFO.{stream}")
    except NotFoundError as error:
        msg = f"the bucket {bucket!r} is not there; `holdfast admin init` makes it"
        raise UnavailableError(msg) from error
    config = answer["config"]
    for one in settings:
        found = config.get(one.field, one.wanted if one.field in _ALWAYS_TOLD else False)
        if found != one.wanted:
            msg = f"the bucket {bucket!r} has {one.field}={found!r}; {one.advice}"
            raise UnavailableError(msg)


_ALWAYS_TOLD: Final = frozenset({"max_age", "max_msgs", "max_msgs_per_subject", "discard"})
"""What a server leaves out of these was never set; of the others, that is off."""
