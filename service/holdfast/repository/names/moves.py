"""The source in the batch that commits a copy or a rename, or keeps it from being written.

Another worker that was asked for the same write may have announced what the source has since then,
and not have touched it yet. So a worker commits only what it has itself announced and touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.domain.blob_names import Conditions
from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.names.record import MISSING, NameRecord, content_of, deleted
from holdfast.stores.record_ports import Put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.repository.ledger.ledger import Beside, Held
    from holdfast.repository.names.record import NamedContent
    from holdfast.repository.names.writes import NameWrites
    from holdfast.stores.record_ports import Change


class SourceChangedError(ConflictError):
    """The source has something else than what was announced, or another worker announced that."""


def bringing(content: NamedContent) -> Beside[NameRecord]:
    """Nothing, where the target gets ``content``. Raises SourceChangedError."""

    async def beside(_: Held[NameRecord] | None, target: Held[NameRecord]) -> Sequence[Change]:
        _check_brings(target.record.content, content)
        return []

    return beside


def _check_brings(brought: NamedContent | None, content: NamedContent) -> None:
    """Raises SourceChangedError unless it is the blob of ``content``, and what was said of it."""
    if brought != content:
        raise SourceChangedError


class Move:
    """Takes the blob from ``source``, by the write ``op``."""

    def __init__(self, writes: NameWrites, source: str, op: str) -> None:
        self._writes = writes
        self._source = source
        self._op = op

    def taking(self, moved: NamedContent) -> Beside[NameRecord]:
        """The change beside a `NameWrites.commit`: the source without ``moved``, as it is then.

        Raises SourceChangedError, NotFoundError.
        """

        async def beside(_: Held[NameRecord] | None, target: Held[NameRecord]) -> Sequence[Change]:
            _check_brings(target.record.content, moved)
            held = await self._writes.look(self._source)
            step = await self._writes.step(self._source, may_lose=True)
            content = None if held is None else content_of(held.record, step.at, step.keep)
            if held is None or content is None:
                raise NotFoundError(MISSING)
            if content != moved:
                raise SourceChangedError
            await self._writes.keep_version(held, step)
            reason = f"renamed to {target.record.name}"
            bare = deleted(held.record, self._op, Conditions(), step, reason=reason)
            await self._writes.past.note(held.record, bare)
            return [
                Put(
                    key=held.key,
                    value=msgspec.json.encode(bare),
                    expected=held.revision,
                    grave=True,
                )
            ]

        return beside
