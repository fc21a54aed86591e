"""The parts of a worker that deal with names of blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.repository.blobs import BLOBS, BlobRepository
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE
from holdfast.repository.names.bytes import NamedBytes
from holdfast.repository.names.expiry import NameExpiry
from holdfast.repository.names.index.index import NameIndex
from holdfast.repository.names.lapses import NameLapses
from holdfast.repository.names.names import NameRepository
from holdfast.repository.names.past import PastWrites
from holdfast.repository.names.rules import BELIEVED_SECONDS, NameRules
from holdfast.repository.names.targets import NameTargets
from holdfast.repository.names.writes import NameWrites
from holdfast.runtime.lifecycle import Chore

if TYPE_CHECKING:
    from holdfast.bootstrap.setup import Setup
    from holdfast.bootstrap.stores import Stores
    from holdfast.repository.uploads.uploads import UploadService


class NameParts:
    """Everything about names that one worker has. Made in the event loop that runs it."""

    def __init__(self, setup: Setup, stores: Stores) -> None:
        sources, worker = setup.sources, setup.worker
        past = PastWrites(stores.records, sources.clock)
        stored = NamedBytes(stores.blobs, sources)
        blobs = BlobRepository({BLOBS: stores.blobs}, max_inline_bytes=setup.max_inline_bytes)
        self._setup = setup
        self.rules = NameRules(stores.names, monotonic=sources.monotonic)
        self.writes = NameWrites(stores.names, self.rules, past, worker=worker, sources=sources)
        self.names = NameRepository(blobs, stored, self.writes, self.rules, sources=sources)
        self.targets = NameTargets(self.writes, stored, sources)
        self.index = NameIndex(stores.names, keep=self.rules.known, sources=sources)
        self.expiry = NameExpiry(
            stores.names, self.writes, self.rules, worker=worker, sources=sources
        )

    def chores(self, uploads: UploadService) -> tuple[Chore, ...]:
        """The work to be done in the background."""
        lease_seconds = self._setup.config.upload_lease_seconds
        lapses = NameLapses(
            self.writes,
            self.index.pending,
            uploads.is_live,
            monotonic=self._setup.sources.monotonic,
            lease_seconds=lease_seconds,
        )
        return (
            Chore("read_rules", BELIEVED_SECONDS, self.rules.read, first_seconds=0),
            Chore("sweep_names", lease_seconds / SWEEPS_PER_LEASE, lapses.sweep),
        )
