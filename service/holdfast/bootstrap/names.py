"""The parts of a worker that deal with names of blobs."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NameParts:
    """Everything about names that one worker has."""

    names: NameRepository
    targets: NameTargets
    index: NameIndex
    rules: NameRules
    writes: NameWrites
    expiry: NameExpiry

    def chores(self, setup: Setup, uploads: UploadService) -> tuple[Chore, ...]:
        """The work to be done in the background."""
        lease_seconds = setup.config.upload_lease_seconds
        lapses = NameLapses(
            self.writes,
            self.index.pending,
            uploads.is_live,
            monotonic=setup.sources.monotonic,
            lease_seconds=lease_seconds,
        )
        return (
            Chore("read_rules", BELIEVED_SECONDS, self.rules.read, first_seconds=0),
            Chore("sweep_names", lease_seconds / SWEEPS_PER_LEASE, lapses.sweep),
        )


def assemble_names(setup: Setup, stores: Stores) -> NameParts:
    """To be called in the event loop that runs them."""
    sources = setup.sources
    rules = NameRules(stores.names, monotonic=sources.monotonic)
    past = PastWrites(stores.records, sources.clock)
    writes = NameWrites(stores.names, rules, past, worker=setup.worker, sources=sources)
    stored = NamedBytes(stores.blobs, sources)
    blobs = BlobRepository({BLOBS: stores.blobs}, max_inline_bytes=setup.max_inline_bytes)
    return NameParts(
        names=NameRepository(blobs, stored, writes, rules, sources=sources),
        targets=NameTargets(writes, stored, sources),
        index=NameIndex(stores.names, keep=rules.known, sources=sources),
        rules=rules,
        writes=writes,
        expiry=NameExpiry(stores.names, writes, rules, worker=setup.worker, sources=sources),
    )
