"""The source in the batch that commits a copy or a rename, or keeps it from being written.

Another worker that was asked for the same write may have announced what the source has since then,
and not have touched it yet. So a worker commits only what it has itself announced and touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.domain.blob_names import Conditions
from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.names.record import MISSING, NamedContent, NameRecord, content_of, deleted
from holdfast.stores.record_ports import Change, Put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.repository.ledger.ledger import Beside, Held
    from holdfast.repository.names.writes import NameWrites


class SourceChangedError(ConflictError):
    """The source has something else than what was announced, or another worker announced that."""


def bringing(
    writes: NameWrites, op: str, content: NamedContent, moved_from: str | None
) -> Beside[NameRecord]:
    """The rest of the batch of a `NameWrites.commit` by which the target gets ``content``.

    That is nothing, or the name ``moved_from`` without it. Raises SourceChangedError,
    NotFoundError.
    """

    async def beside(_: object, target: Held[NameRecord]) -> Sequence[Change]:
        if target.record.content != content:
            raise SourceChangedError
        if moved_from is None:
            return []
        held = await writes.look(moved_from)
        step = await writes.step(moved_from, may_lose=True)
        present = None if held is None else content_of(held.record, step.at, step.keep)
        if held is None or present is None:
            raise NotFoundError(MISSING)
        if present != content:
            raise SourceChangedError
        await writes.keep_version(held, step)
        reason = f"renamed to {target.record.name}"
        bare = deleted(held.record, op, Conditions(), step, reason=reason)
        await writes.past.note(held.record, bare)
        value = msgspec.json.encode(bare)
        return [Put(key=held.key, value=value, expected=held.revision, grave=True)]

    return beside
