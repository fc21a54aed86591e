"""Records beneath later ones, which nats-server brought back when it was killed.

A record is written with a roll-up, which removes those before it; but an object store's stream
keeps any number of messages on a subject, and a removed one may come back (docs/decisions.md,
"Deleting removes at once"). A read of the last message never sees it. A reader in order does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage


async def ghosts(
    js: JetStream,
    stream: str,
    records: Sequence[StoredMessage],
    *,
    met: Mapping[str, int],
    position: int,
) -> set[int]:
    """The sequences of those of ``records`` that have a later one above them.

    ``met`` has the last record on each subject before ``position``: only for what lies behind the
    server is asked. Any replica's word will do, for one that lags can only know of fewer. Raises
    UnavailableError.
    """
    subjects = [record.subject for record in records]
    messages = await js.direct_lasts(stream, subjects, since=position)
    last = {**met, **{message.subject: message.sequence for message in messages}}
    return {one.sequence for one in records if last[one.subject] > one.sequence}
