"""Records that lie beneath later ones: what nats-server brought back when it was killed.

A record is written with a roll-up, which removes those before it; but an object store's stream
keeps any number of messages on a subject, and a removed one may come back (docs/decisions.md,
"Deleting removes at once"). Who asks for the last message never sees it. Who reads in order does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.transport.jetstream_messages import SUBJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.stores.object_walk import Walk
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage


async def ghosts(
    js: JetStream, stream: str, records: Sequence[StoredMessage], walk: Walk
) -> set[int]:
    """The sequences of those of ``records``, which ``walk`` met, that have a later one above them.

    Any replica's word will do, for one that lags can only know of fewer. Raises UnavailableError.
    """
    # What lies up to where the walk is, it has met; so the server is asked for what lies behind.
    subjects = [subject_of(record) for record in records]
    messages = await js.direct_lasts(stream, subjects, since=walk.position)
    last = walk.last | {subject_of(message): message.sequence for message in messages}
    return {one.sequence for one in records if last[subject_of(one)] > one.sequence}


def subject_of(message: StoredMessage) -> str:
    """Where it is stored, whichever way it was read."""
    return message.headers.get(SUBJECT, message.subject)
