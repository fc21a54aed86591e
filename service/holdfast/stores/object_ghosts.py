"""Records that lie beneath later ones: what nats-server brought back when it was killed.

A record is written with a roll-up, which removes those before it; but an object store's stream
keeps any number of messages on a subject, and a removed one may come back (docs/decisions.md,
"Deleting removes at once"). Who asks for the last message never sees it. Who reads in order does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.transport.jetstream_messages import SUBJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_SUBJECTS_PER_REQUEST: Final = 500
_QUOTES_BYTES: Final = 3


async def ghosts(js: JetStream, stream: str, records: Sequence[StoredMessage]) -> set[int]:
    """The sequences of those of ``records`` that are not the last on their subjects.

    Any replica's word will do, for one that lags can only know of fewer. Raises UnavailableError.
    """
    found: set[int] = set()
    for some in _in_requests(records, js.connection.max_payload // 2):
        query = {"multi_last": [record.subject for record in some], "batch": len(some)}
        messages, _ = await js.direct_batch(stream, query)
        last = {message.headers.get(SUBJECT, ""): message.sequence for message in messages}
        found |= {one.sequence for one in some if last.get(one.subject, 0) > one.sequence}
    return found


def _in_requests(
    records: Sequence[StoredMessage], most_bytes: int
) -> Iterator[Sequence[StoredMessage]]:
    """``records`` in groups whose subjects fit into a request, each at least one."""
    some: list[StoredMessage] = []
    size = 0
    for record in records:
        size += len(record.subject) + _QUOTES_BYTES
        if some and (size > most_bytes or len(some) == _SUBJECTS_PER_REQUEST):
            yield some
            some, size = [], len(record.subject) + _QUOTES_BYTES
        some.append(record)
    if some:
        yield some
