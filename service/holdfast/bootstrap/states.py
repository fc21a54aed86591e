"""The parts of a worker that deal with states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.handlers.follow import MAX_MESSAGE_BYTES, FollowHandlers
from holdfast.handlers.states import StateHandlers
from holdfast.protocol.subjects import append_subject
from holdfast.repository.states.appending import Appender
from holdfast.repository.states.blobs import SavedBytes
from holdfast.repository.states.ends import WRITE_DOWN_SECONDS
from holdfast.repository.states.logs import StateLogs
from holdfast.repository.states.places import CommandPlaces
from holdfast.repository.states.replays import Replays
from holdfast.repository.states.saves import StateSaves
from holdfast.repository.states.skew import ClockSkew
from holdfast.repository.states.states import StateRecords
from holdfast.repository.states.upkeep import Upkeep
from holdfast.runtime.lifecycle import Chore

if TYPE_CHECKING:
    from holdfast.bootstrap.setup import Setup
    from holdfast.bootstrap.stores import Stores

PAGE_OVERHEAD_BYTES: Final = 1024
"""Bytes that a page of commands, or the answer with a state, takes beside them."""

_JITTER: Final = 0.2


class StateParts:
    """Everything about states that one worker has. Made in the event loop that runs it."""

    def __init__(self, setup: Setup, stores: Stores) -> None:
        sources = setup.sources
        logs = StateLogs(stores.states)
        states = StateRecords(stores.snapshots, logs, sources=sources)
        places = CommandPlaces(logs)
        stored = SavedBytes(stores.blobs, sources)
        max_bytes = setup.max_inline_bytes - PAGE_OVERHEAD_BYTES
        skew = ClockSkew(stores.states, sources=sources)
        self.records = states
        self.replays = Replays(states, places, max_bytes=max_bytes)
        self.upkeep = Upkeep(states, places, stored, sources=sources)
        self.handlers = StateHandlers(
            Appender(states, skew, sources=sources, max_bytes=setup.max_inline_bytes),
            StateSaves(states, stored, sources=sources, max_bytes=max_bytes),
            self.replays,
            self.upkeep,
            append_subjects=(
                append_subject(setup.worker, "json"),
                append_subject(setup.worker, "bytes"),
            ),
            prefix=setup.config.prefix,
            max_inline_bytes=setup.max_inline_bytes,
        )
        self.follows = FollowHandlers(
            self.replays,
            monotonic=sources.monotonic,
            max_bytes=min(MAX_MESSAGE_BYTES, setup.max_inline_bytes // 2),
        )

    def chores(self) -> tuple[Chore, ...]:
        """The work to be done in the background."""
        write = self.records.write_ends_down
        return (Chore("write_ends_down", WRITE_DOWN_SECONDS, write, jitter=_JITTER),)
