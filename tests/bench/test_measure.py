"""The bench measures real things: other clients' own object stores, on a real server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from tests.bench.contenders import Contender, find_contenders
from tests.bench.large import measure_large
from tests.bench.processes import ProcessError

from holdfast.cli.bench.pool import Pool
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.nats, pytest.mark.slow]

PEERS = {peer.name: peer for peer in find_contenders(None)[1:]}
SIZE = 300_000  # not a whole number of anybody's chunks

_LIAR = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    do = json.loads(line)["do"]
    print(json.dumps({"seconds": 1.0, "key": "k", "sha256": do}), flush=True)
"""


@pytest.fixture
def pool(nats_url: str, tmp_path: Path) -> Pool:
    return Pool(url=nats_url, sync="always", directory=tmp_path, worker_pids=(), server_pid=0)


def quiet(_text: str) -> None:
    """Nobody watches."""


async def test_every_installed_client_is_timed_in_every_round(pool: Pool) -> None:
    figures, problems = await measure_large(
        pool, list(PEERS.values()), size=SIZE, rounds=2, say=quiet
    )

    assert problems == []
    assert {(each.contender, each.what) for each in figures} == {
        (name, action) for name in PEERS for action in ("put", "get")
    }
    assert all(len(each.values) == 2 and min(each.values) > 0 for each in figures)
    assert {(each.sync, each.size) for each in figures} == {("always", f"{SIZE / 2**20:g} MiB")}


async def test_a_client_that_cannot_start_is_reported_and_the_others_are_measured(
    pool: Pool,
) -> None:
    broken = Contender("broken", (sys.executable, "-c", "raise SystemExit('no such thing')"))

    figures, problems = await measure_large(
        pool, [broken, PEERS["nats-py"]], size=SIZE, rounds=1, say=quiet
    )

    assert {each.contender for each in figures} == {"nats-py"}
    assert len(problems) == 1
    assert "broken ended" in problems[0]
    assert "no such thing" in problems[0]


async def test_a_client_that_reads_other_bytes_than_it_put_is_not_measured(pool: Pool) -> None:
    liar = Contender("liar", (sys.executable, "-c", _LIAR))

    figures, problems = await measure_large(pool, [liar], size=SIZE, rounds=1, say=quiet)

    assert figures == []
    assert problems == ["liar read other bytes than it had put"]


async def test_holdfast_failing_fails_the_run(pool: Pool) -> None:
    broken = Contender("holdfast", (sys.executable, "-c", "raise SystemExit('out of order')"))

    with pytest.raises(ProcessError, match="out of order"):
        await measure_large(pool, [broken], size=SIZE, rounds=1, say=quiet)


async def test_asking_for_nats_js_without_its_packages_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"@nats-io/transport-node|no.* on PATH"):
        find_contenders(tmp_path)
