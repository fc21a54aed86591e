"""Announcements that nobody carries on end with their lease."""

from __future__ import annotations

from tests.repository.names.gated import GatedPool

from holdfast.domain.blob_names import Said
from holdfast.domain.digest import digest_of
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE
from holdfast.repository.names.record import announcing

DATA = b"some bytes"


async def test_a_write_that_nobody_carries_on_ends_however_often_others_write_the_name() -> None:
    pool = GatedPool()
    worker = pool.worker()
    await worker.create("n", DATA)
    one = announcing(
        "replace", Said(), op="dead", at=pool.time.clock(), digest=digest_of(DATA), size=len(DATA)
    )
    await worker.writes.announce("n", one)

    for number in range(SWEEPS_PER_LEASE + 1):
        await worker.replace("n", b"%d" % number)
        await pool.sweep()

    held = await worker.writes.look("n")
    assert held is not None
    assert held.record.pending == ()
    assert await worker.read("n") == b"%d" % SWEEPS_PER_LEASE
