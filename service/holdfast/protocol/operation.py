"""An operation is a value: subject, request and reply belong together, so they are one name."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from holdfast.protocol.message import Reply, Request

RequestT = TypeVar("RequestT", bound=Request)
ReplyT = TypeVar("ReplyT", bound=Reply)

QUEUE_GROUP: Final = "q"
"""The queue group that ADR-32 gives to a service's endpoints: one worker gets each request."""


class Body(enum.Enum):
    """The content of a payload."""

    MESSAGE = "message"
    """The message itself, as JSON or msgpack."""
    BYTES = "bytes"
    """The blob's bytes, or events; the message's fields travel as headers."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[RequestT, ReplyT]):
    """One verb of the wire.

    ``subject`` is without the deployment's prefix. ``mutates`` says whether a lost answer leaves
    the outcome unknown. ``queue`` is False for subjects that one worker alone answers. Where it may
    be ``bare``, a body that is a digest and nothing else stands for the request for that. One that
    is answered by many messages has ``events`` in their bodies, as JSON arrays of ``events_type``.
    """

    subject: str
    request: type[RequestT]
    reply: type[ReplyT]
    summary: str
    request_body: Body = Body.MESSAGE
    reply_body: Body = Body.MESSAGE
    mutates: bool = False
    queue: bool = True
    bare: bool = False
    events: type[Struct] | None = None
    events_type: str = "application/json"

    @property
    def name(self) -> str:
        """The ADR-32 endpoint name: the subject with ``-`` for ``.``."""
        return self.subject.replace(".", "-")

    def schema_id(self, side: str) -> str:
        """The ``$id`` of this operation's ``request``, ``reply`` or ``event`` schema."""
        return f"urn:holdfast:wire:1:{self.subject}:{side}"


AnyOperation = Operation[Any, Any]
