"""The faults: each strikes, holds until writes go on, and is healed.

Which server or worker it strikes is drawn, or follows from who leads. A fault is a context manager:
what comes before its ``yield`` strikes, what comes after heals.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.cluster import disk, loss
from tests.cluster.history import Fault
from tests.cluster.load import WRITERS
from tests.cluster.loss import losing
from tests.cluster.workers import NODES

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from tests.cluster.history import History, Operation
    from tests.cluster.servers import Cluster
    from tests.cluster.workers import Pool

    type Strike = Callable[[Scene], AbstractAsyncContextManager[Struck]]

PAUSE_SECONDS: Final = 8.0
QUORUM_SECONDS: Final = 6.0
CUT_SECONDS: Final = 5.0
KILL_SECONDS: Final = 1.5
HOLD_SECONDS: Final = 45.0
RECOVERED_SECONDS: Final = 150.0
SLOW_SECONDS: Final = 0.025
SLOW_BYTES_PER_SECOND: Final = 10e6 / 8
LOST_PERCENT: Final = 20
DROPS: Final = 5
DROP_SECONDS: Final = 1.0
SCALING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Struck:
    """When, and on what; whose writes must go on (empty: anybody's)."""

    at: float
    on: str
    clients: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Scene:
    """The targets to strike."""

    cluster: Cluster
    pool: Pool
    history: History
    rng: random.Random

    async def leader(self) -> str:
        """The server that leads the stream that all puts wait for."""
        return await self.cluster.leader_of(self.pool.streams[0])

    async def follower(self) -> str:
        """Another server, which may lead other streams."""
        return self.rng.choice(self.cluster.others(await self.leader()))

    def struck(self, on: str, clients: frozenset[str] = frozenset()) -> Struck:
        """A fault that strikes now."""
        return Struck(self.history.now(), on, clients)


@asynccontextmanager
async def _killed_servers(scene: Scene, *names: str) -> AsyncIterator[Struck]:
    struck = scene.struck(" ".join(names))
    for name in names:
        scene.cluster.servers[name].kill()
    yield struck
    for name in names:
        scene.cluster.servers[name].start()


@asynccontextmanager
async def _kill_all(scene: Scene) -> AsyncIterator[Struck]:
    async with _killed_servers(scene, *scene.cluster.servers) as struck:
        pass
    yield struck


@asynccontextmanager
async def _lose_quorum(scene: Scene) -> AsyncIterator[Struck]:
    """Two of three are gone for a while; what counts is the time from when they are back."""
    names = scene.rng.sample([*scene.cluster.servers], 2)
    async with _killed_servers(scene, *names):
        await asyncio.sleep(QUORUM_SECONDS)
    yield scene.struck(" ".join(names))


@asynccontextmanager
async def _wipe(scene: Scene) -> AsyncIterator[Struck]:
    name = scene.rng.choice([*scene.cluster.servers])
    async with _killed_servers(scene, name) as struck:
        scene.cluster.servers[name].wipe()
    yield struck


@asynccontextmanager
async def _pause_server(scene: Scene, name: str) -> AsyncIterator[Struck]:
    struck = scene.struck(name)
    await asyncio.to_thread(scene.cluster.servers[name].pause)
    yield struck
    scene.cluster.servers[name].resume()


@asynccontextmanager
async def _kill_worker(scene: Scene) -> AsyncIterator[Struck]:
    node = scene.rng.choice(NODES)
    struck = scene.struck(node)
    scene.pool.kill(node)
    yield struck
    scene.pool.start_workers(node)


@asynccontextmanager
async def _pause_worker(scene: Scene) -> AsyncIterator[Struck]:
    node = scene.rng.choice(NODES)
    struck = scene.struck(node)
    await asyncio.to_thread(scene.pool.pause, node)
    yield struck
    scene.pool.wake(node)


@asynccontextmanager
async def _isolated(scene: Scene, name: str) -> AsyncIterator[Struck]:
    """The writes of its own clients must go on too, elsewhere."""
    clients = frozenset(WRITERS) & (await scene.cluster.connected())[name]
    struck = scene.struck(f"{name}, with {' '.join(sorted(clients)) or 'no writer'}", clients)
    scene.cluster.links.isolate(name)
    yield struck
    scene.cluster.links.heal()


@asynccontextmanager
async def _isolate_client(scene: Scene) -> AsyncIterator[Struck]:
    """A server with clients, and best one that leads nothing they need."""
    leader = await scene.cluster.leader_of(scene.pool.streams[0])
    connected = await scene.cluster.connected()
    inhabited = [name for name in connected if not connected[name].isdisjoint(WRITERS)]
    name = scene.rng.choice([n for n in inhabited if n != leader] or inhabited)
    async with _isolated(scene, name) as struck:
        yield struck


@asynccontextmanager
async def _cut_bridge(scene: Scene) -> AsyncIterator[Struck]:
    one, other = scene.rng.sample([*scene.cluster.servers], 2)
    struck = scene.struck(f"{one}-{other}")
    scene.cluster.links.part(one, other)
    yield struck
    scene.cluster.links.heal()


@asynccontextmanager
async def _cut_one_way(scene: Scene) -> AsyncIterator[Struck]:
    """All that the leader sends, or all that it should receive, is lost."""
    leader = await scene.leader()
    outwards = scene.rng.random() < 0.5
    struck = scene.struck(f"{'from' if outwards else 'to'} {leader}")
    for other in scene.cluster.others(leader):
        pair = (leader, other) if outwards else (other, leader)
        scene.cluster.links.cut(*pair)
    yield struck
    scene.cluster.links.heal()


@asynccontextmanager
async def _slow_links(scene: Scene) -> AsyncIterator[Struck]:
    """All of them, for as long as it holds: 25 ms in each direction, and 10 Mbit/s."""
    struck = scene.struck("all links")
    scene.cluster.links.slow(SLOW_SECONDS, SLOW_BYTES_PER_SECOND)
    yield struck
    scene.cluster.links.heal()


@asynccontextmanager
async def _lossy_links(scene: Scene) -> AsyncIterator[Struck]:
    """Every fifth packet between servers is lost."""
    struck = scene.struck("all links")
    with losing(scene.cluster.links.ports, LOST_PERCENT):
        yield struck


@asynccontextmanager
async def _dropped_links(scene: Scene) -> AsyncIterator[Struck]:
    """Every connection between servers ends, again and again."""
    struck = scene.struck("all links")
    for _ in range(DROPS):
        scene.cluster.links.drop()
        await asyncio.sleep(scene.rng.uniform(0, 2 * DROP_SECONDS))
    yield struck


@asynccontextmanager
async def _cut_power(scene: Scene) -> AsyncIterator[Struck]:
    """Of all servers and their disks at once: what was not synced is gone."""
    struck = scene.struck("all servers")
    await asyncio.to_thread(scene.cluster.cut_power)
    for server in scene.cluster.servers.values():
        server.start()
    yield struck


def _of(
    fault: Callable[[Scene, str], AbstractAsyncContextManager[Struck]],
    server: Callable[[Scene], Awaitable[str]],
) -> Strike:
    """``fault`` of the ``server`` that it is by then."""

    @asynccontextmanager
    async def strike(scene: Scene) -> AsyncIterator[Struck]:
        async with fault(scene, await server(scene)) as struck:
            yield struck

    return strike


def _while_scaling(strike: Strike) -> Strike:
    return lambda scene: _rescaled(scene, strike)


def _kill_any(scene: Scene) -> AbstractAsyncContextManager[Struck]:
    return _killed_servers(scene, scene.rng.choice([*scene.cluster.servers]))


@asynccontextmanager
async def _rescaled(scene: Scene, strike: Strike) -> AsyncIterator[Struck]:
    """From three copies to one and back, twice, struck each time while copies are being added."""
    for is_last in (False, True):
        await scene.pool.keep_replicas(1)
        await scene.pool.order_replicas(3)
        await asyncio.sleep(scene.rng.uniform(0, SCALING_SECONDS))
        async with strike(scene) as struck:
            if is_last:
                yield struck
            else:
                await asyncio.sleep(KILL_SECONDS)
        await scene.pool.keep_replicas(3)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how it strikes, and for how long at least and at most.

    ``is_single``: of one server, worker or link, so that the promise of 15 s holds. ``is_long``:
    it takes a minute, or more than what there is everywhere. ``missing`` says why it cannot be made
    here, if it cannot.
    """

    name: str
    strike: Strike
    least_seconds: float = KILL_SECONDS
    most_seconds: float = HOLD_SECONDS
    is_single: bool = True
    is_long: bool = False
    missing: Callable[[], str | None] = lambda: None


KINDS: Final = (
    Kind("kill leader", _of(_killed_servers, Scene.leader)),
    Kind("kill follower", _of(_killed_servers, Scene.follower)),
    Kind("kill worker", _kill_worker),
    Kind("pause leader", _of(_pause_server, Scene.leader), PAUSE_SECONDS, PAUSE_SECONDS),
    Kind("pause follower", _of(_pause_server, Scene.follower), PAUSE_SECONDS, PAUSE_SECONDS),
    Kind("pause worker", _pause_worker, PAUSE_SECONDS, PAUSE_SECONDS),
    Kind("kill all servers", _kill_all, 0.0, is_single=False),
    Kind("wipe a server", _wipe, 0.0),
    Kind("lose the quorum", _lose_quorum, 0.0, is_single=False),
    Kind("kill meta leader", _of(_killed_servers, lambda scene: scene.cluster.meta_leader())),
    Kind("partition leader", _of(_isolated, Scene.leader), CUT_SECONDS),
    Kind("cut one way", _cut_one_way, CUT_SECONDS),
    Kind("isolate clients", _isolate_client, CUT_SECONDS),
    Kind("cut bridge", _cut_bridge, CUT_SECONDS),
    Kind("slow links", _slow_links, PAUSE_SECONDS),
    Kind("dropped links", _dropped_links, 0.0),
    Kind("lossy links", _lossy_links, 2 * PAUSE_SECONDS, is_long=True, missing=loss.missing),
    Kind("cut power", _cut_power, 0.0, is_single=False, is_long=True, missing=disk.missing),
    # Where the only whole copy was killed nothing goes on before it is back.
    Kind(
        "kill, scaling",
        _while_scaling(_kill_any),
        KILL_SECONDS,
        CUT_SECONDS,
        is_single=False,
        is_long=True,
    ),
    Kind("kill all, scaling", _while_scaling(_kill_all), 0.0, is_single=False, is_long=True),
    Kind(
        "cut power, scaling",
        _while_scaling(_cut_power),
        0.0,
        is_single=False,
        is_long=True,
        missing=disk.missing,
    ),
)


def kinds_here(kinds: Iterable[Kind]) -> tuple[list[Kind], list[str]]:
    """Those that can be made on this machine; and the others, with the reason."""
    reasons = {kind: kind.missing() for kind in kinds}
    left_out = [f"{kind.name}: {why}" for kind, why in reasons.items() if why is not None]
    return [kind for kind, why in reasons.items() if why is None], left_out


def drawn(rng: random.Random, count: int, kinds: Sequence[Kind]) -> list[Kind]:
    """``count`` of ``kinds``: all of them before one comes again."""
    found: list[Kind] = []
    while len(found) < count:
        found += rng.sample(kinds, len(kinds))
    return found[:count]


async def carry_out(kind: Kind, scene: Scene) -> Fault:
    """Strike, hold, heal, and return when all is well and every writer was acknowledged.

    Raises TimeoutError, with what had not come about, when that takes too long.
    """
    async with kind.strike(scene) as struck:
        fault = Fault(kind=kind.name, on=struck.on, start=struck.at)
        scene.history.faults.append(fault)
        next_ack = asyncio.create_task(scene.history.wait_acknowledged(struck.at, struck.clients))
        try:
            await _hold(kind, next_ack, struck.at + kind.least_seconds - scene.history.now())
        except BaseException:
            next_ack.cancel()
            raise
    fault.end = scene.history.now()
    fault.next_ack = (await _in_time(next_ack, fault)).end - struck.at
    await scene.cluster.wait_settled(scene.pool.streams)
    fault.settled = scene.history.now() - fault.end
    await scene.pool.wait_serving(set(NODES))
    for writer in WRITERS:
        acknowledged = scene.history.wait_acknowledged(struck.at, frozenset({writer}))
        operation = await _in_time(acknowledged, fault)
        fault.all_acks = max(fault.all_acks, operation.end - struck.at)
    return fault


async def _in_time(acknowledged: Awaitable[Operation], fault: Fault) -> Operation:
    try:
        async with asyncio.timeout(RECOVERED_SECONDS):
            return await acknowledged
    except TimeoutError as error:
        msg = f"no put was acknowledged for {RECOVERED_SECONDS} s after {fault}"
        raise TimeoutError(msg) from error


async def _hold(kind: Kind, next_ack: asyncio.Task[object], least_seconds: float) -> None:
    """Until writes have gone on, or for as long as the fault lasts at most."""
    least = asyncio.create_task(asyncio.sleep(least_seconds))
    await asyncio.wait({next_ack}, timeout=kind.most_seconds)
    await least
