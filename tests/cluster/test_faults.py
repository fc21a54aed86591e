"""Faults under load: nothing acknowledged is lost, nothing wrong is served, and writes go on.

``make faults FAULTS=100 SEED=1`` for as many as one likes, ``KINDS='cut power|slow links'`` for
some kinds alone. The seed draws the faults and what the clients do; who leads a stream when a fault
strikes is the servers' affair. A dozen or fewer leave out what takes a minute or rights of root.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest
from tests.cluster.checker import violations
from tests.cluster.disk import Disk
from tests.cluster.disk import missing as disk_missing
from tests.cluster.faults import KINDS, Scene, carry_out, drawn, kinds_here
from tests.cluster.load import Load
from tests.cluster.report import report
from tests.cluster.servers import Cluster
from tests.cluster.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.workers import Pool

_FAULTS: Final = int(os.environ.get("FAULTS", "6"))
_SEED: Final = int(os.environ.get("SEED", "541"))  # draws faults of six sorts first
_LARGE_RUN: Final = 50
_NEXT_ACK_SECONDS: Final = 15.0
_SHOWN: Final = 10
_SHORT_RUN: Final = 12
_NAMED: Final = os.environ.get("KINDS", "")
_IS_SHORT: Final = _FAULTS <= _SHORT_RUN and not _NAMED
_KINDS: Final = [
    kind
    for kind in KINDS
    if (kind.name in _NAMED.split("|") if _NAMED else not (_IS_SHORT and kind.is_long))
]

pytestmark = [
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(300 + 60 * _FAULTS),
    pytest.mark.usefixtures("unhurried"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers; for a long run on a disk whose power can be cut, where there can be one."""
    directory = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        disk = None
        if not _IS_SHORT and disk_missing() is None:
            disk = stack.enter_context(Disk(directory / "disk"))
        yield stack.enter_context(Cluster(directory / "disk", disk))


@pytest.mark.fault("N01")
@pytest.mark.fault("N02")
@pytest.mark.fault("N03")
@pytest.mark.fault("N04")
@pytest.mark.fault("N07")
@pytest.mark.fault("N08")
@pytest.mark.fault("N09")
@pytest.mark.fault("N10")
@pytest.mark.fault("N11")
@pytest.mark.fault("N14")
async def test_nothing_acknowledged_is_lost_and_writes_go_on_whatever_fails(
    cluster: Cluster, pool: Pool, tmp_path: Path
) -> None:
    load = Load(pool, _SEED)
    rng = random.Random(_SEED)  # noqa: S311
    scene = Scene(cluster, pool, load.history, rng)
    kinds, left_out = kinds_here(_KINDS)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run())
        await load.history.wait_acknowledged(0)
        for number, kind in enumerate(drawn(rng, _FAULTS, kinds), 1):
            fault = await carry_out(kind, scene)
            await cluster.check_routes()
            print(  # noqa: T201  (what a long run is for)
                f"{number:3} {fault}: next ack {fault.next_ack:.1f} s,"
                f" every writer {fault.all_acks:.1f} s, settled {fault.settled:.1f} s after it"
            )
        load.stop()
    ended = load.history.now()
    found = await survey(load, rng, tmp_path)
    looked = load.history.now() - ended

    print(  # noqa: T201
        f"seed {_SEED}, {_FAULTS} faults in {ended:.0f} s, looked at for {looked:.0f} s\n"
        f"{report(load.history)}"
        f"{''.join(f'\nleft out: {why}' for why in left_out)}"
    )
    wrong = violations(load.history, found)
    assert not wrong, f"seed {_SEED}: {len(wrong)} violations\n" + "\n".join(
        map(str, wrong[:_SHOWN])
    )
    if _FAULTS >= _LARGE_RUN:
        single = {kind.name for kind in KINDS if kind.is_single}
        slow = [
            fault
            for fault in load.history.faults
            if fault.kind in single and fault.next_ack > _NEXT_ACK_SECONDS
        ]
        assert not slow, "\n".join(map(str, slow))
