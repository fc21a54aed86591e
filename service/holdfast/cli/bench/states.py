"""Measures states: appends beside bare publishes of the same bytes, loads beside a blob's read.

The contenders take turns, and what counts is the ratio within a round, as for blobs.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast.cli.bench.machine import describe_machine
from holdfast.cli.bench.pool import TIMEOUT_SECONDS, run_directory, start_pool
from holdfast.cli.bench.publisher import Publisher, publisher
from holdfast.cli.bench.report import (
    HOLDFAST,
    Figure,
    Promise,
    Report,
    Sync,
    percentile,
    seconds_of,
    seconds_of_each,
)
from holdfast.client import Client, connect
from holdfast.domain.limits import KIB, MIB
from holdfast.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    type Say = Callable[[str], None]
    type Work = Callable[[Sequence[Any]], Awaitable[object]]

PUBLISHES: Final = "bare publishes"
COMPARED: Final = "compare-and-set of each"
BLOB: Final = "blob.get of as many bytes"
COMMAND_BYTES: Final = 200
IN_FLIGHT: Final = 64
BATCH: Final = 64
BATCHES_IN_FLIGHT: Final = 8
MANY_TASKS: Final = 256
COMMANDS_EACH: Final = 10
FEW_STATES: Final = 10
_LOAD_COMMANDS: Final = 10_000
_SAMPLE: Final = 200
_LOADS: Final = 5
_NEVER: Final = 10**9

SINGLE: Final = f"single, {IN_FLIGHT} in flight"
TOGETHER: Final = f"coalesced of {IN_FLIGHT} tasks"
MANY_TOGETHER: Final = f"coalesced of {MANY_TASKS} tasks"
BATCHES: Final = f"batches of {BATCH}, {BATCHES_IN_FLIGHT} in flight"
ALONE: Final = "one at a time"
LOAD: Final = f"load of a state and {_LOAD_COMMANDS:,} commands"
_APPENDS: Final = f"Commands of {COMMAND_BYTES} B appended to one state"
_LOADS_TITLE: Final = "Loading: the newest save, and the commands behind it"
_MANY: Final = f"States of {COMMANDS_EACH} commands each: p50 of one append, and of one load"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRun:
    """The settings. Sizes are bytes; a 0 leaves that measurement out."""

    syncs: tuple[Sync, ...]
    rounds: int
    commands: int
    size: int
    states: int
    workers: int
    directory: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlace:
    """A deployment that is measured, on servers that keep ``replicas`` of everything."""

    url: str
    sync: Sync
    prefix: str = ""
    replicas: int = 1


def _rate(what: str, bound: float, against: str = "") -> Promise:
    """So many appends a second, or so many times those ``against`` which it is measured."""
    return Promise(
        name=f"appends a second, {what}, synced{f' / {against}' if against else ''}",
        sync="always",
        what=what,
        unit="per second",
        against=against,
        theirs=SINGLE if against else "",
        comparison="at least",
        bound=bound,
    )


_OF_ONE: Final = (
    Promise(
        name="p50 of one append at a time, synced / one publish",
        sync="always",
        what=ALONE,
        unit="p50 ms",
        against=PUBLISHES,
        comparison="at most",
        bound=3.0,
    ),
    _rate(MANY_TOGETHER, 20_000),
)
PROMISES: Final = (
    _rate(SINGLE, 3.0, PUBLISHES),
    _rate(TOGETHER, 5.0, PUBLISHES),
    _rate(BATCHES, 40_000),
    *_OF_ONE,
    Promise(
        name=f"seconds of a {LOAD}, {{size}} / {BLOB}",
        sync=None,
        what=LOAD,
        size="64 MiB",
        unit="ms",
        against=BLOB,
        comparison="at most",
        bound=1.3,
    ),
)
PROMISES_OF_THREE: Final = (
    _rate(SINGLE, 0.5, PUBLISHES),
    _rate(SINGLE, 8.0, COMPARED),
    _rate(TOGETHER, 1.2, PUBLISHES),
    _rate(BATCHES, 25_000),
    *_OF_ONE,
)
"""Where three servers keep three replicas."""


async def run_state_bench(run: StateRun, say: Say) -> Report:
    """Everything that ``run`` asks for. ``say`` is told what is going on.

    Raises InvalidError when it cannot be run here, UnavailableError when something does not work.
    """
    needed = run.size * 4 + run.commands * run.rounds * 4 * KIB + run.states * 8 * KIB
    with run_directory(run.directory, needed * 1.1, "smaller sizes") as directory:
        report = Report(machine=describe_machine(directory), workers=run.workers)
        for sync in run.syncs:
            async with start_pool(directory / sync, sync=sync, workers=run.workers) as pool:
                place = BenchPlace(url=pool.url, sync=sync)
                if run.rounds:
                    figures = await measure_appends(place, run.rounds, run.commands, say)
                    report.figures.extend(figures)
                if run.size and sync == run.syncs[0]:
                    report.figures.extend(await _measure_load(place, run.size, say))
                if run.states and sync == run.syncs[0]:
                    report.figures.extend(await _measure_many(place, run.states, say))
    return report


async def measure_appends(place: BenchPlace, rounds: int, commands: int, say: Say) -> list[Figure]:
    """Each way to append, and the bare publishes, in turn: ``commands`` of each in a round."""
    values: dict[tuple[str, str, str], list[float]] = {}
    async with (
        publisher(place.url, place.replicas) as bare,
        await connect(
            servers=place.url.split(","), prefix=place.prefix, timeout_seconds=TIMEOUT_SECONDS
        ) as client,
    ):
        ways = _ways(client, bare)
        for number in range(rounds):
            say(f"{place.sync} sync: commands appended, round {number + 1}/{rounds}")
            for (what, contender), (work, share) in ways.items():
                taken = [_command() for _ in range(max(commands // share, MANY_TASKS))]
                given = taken if contender == HOLDFAST else _payloads(taken)
                rate = len(taken) / await seconds_of(work(given))
                values.setdefault((what, contender, "per second"), []).append(rate)
            ours, theirs = await _measure_alone(client, bare, max(commands // 20, 20))
            values.setdefault((ALONE, HOLDFAST, "p50 ms"), []).append(ours)
            values.setdefault((ALONE, PUBLISHES, "p50 ms"), []).append(theirs)
    return [
        Figure(
            table=_APPENDS if unit == "per second" else f"{_APPENDS}, {ALONE}",
            sync=place.sync,
            what=what,
            contender=contender,
            unit=unit,
            values=found,
        )
        for (what, contender, unit), found in values.items()
    ]


def _ways(client: Client, bare: Publisher) -> dict[tuple[str, str], tuple[Work, int]]:
    """Work by measurement and contender, with the count of commands to divide by.

    holdfast is given commands, which it writes as JSON; the others are given the JSON.
    """
    states = client.states

    def append_alone(one: object) -> Awaitable[object]:
        return states.append("single", one, ordered=False)

    def append(one: object) -> Awaitable[object]:
        return states.append("together", one)

    def append_batches(commands: Sequence[object]) -> Awaitable[object]:
        return seconds_of_each(
            itertools.batched(commands, BATCH),
            BATCHES_IN_FLIGHT,
            lambda batch: states.append_many("batches", batch, ordered=False),
        )

    return {
        (SINGLE, HOLDFAST): (lambda given: seconds_of_each(given, IN_FLIGHT, append_alone), 1),
        (SINGLE, PUBLISHES): (lambda given: bare.publish(given, IN_FLIGHT), 1),
        (SINGLE, COMPARED): (bare.compare_and_set, 8),
        (TOGETHER, HOLDFAST): (lambda given: seconds_of_each(given, IN_FLIGHT, append), 1),
        (MANY_TOGETHER, HOLDFAST): (lambda given: seconds_of_each(given, MANY_TASKS, append), 1),
        (BATCHES, HOLDFAST): (append_batches, 1),
    }


async def _measure_alone(client: Client, bare: Publisher, count: int) -> tuple[float, float]:
    """The p50 of an append, and of a publish, in milliseconds, one at a time and in turn."""
    ours, theirs = [], []
    for _ in range(count):
        command = _command()
        payloads = _payloads([command])
        ours.append(await seconds_of(client.states.append("alone", command)) * 1000)
        theirs.append(await seconds_of(bare.publish(payloads, 1)) * 1000)
    return percentile(ours, 50), percentile(theirs, 50)


_numbers: Final = itertools.count()


def _command() -> dict[str, object]:
    """One whose JSON has ``COMMAND_BYTES`` bytes."""
    command: dict[str, object] = {"number": next(_numbers), "text": ""}
    command["text"] = "." * (COMMAND_BYTES - len(json.dumps(command, separators=(",", ":"))))
    return command


def _payloads(commands: Iterable[object]) -> list[bytes]:
    return [json.dumps(command, separators=(",", ":")).encode() for command in commands]


async def _measure_load(place: BenchPlace, size: int, say: Say) -> list[Figure]:
    """A state of ``size`` random bytes and commands behind it, and a blob of as many bytes."""
    say(f"{place.sync} sync: a state of {size / MIB:g} MiB and {_LOAD_COMMANDS:,} commands")
    values: dict[str, list[float]] = {HOLDFAST: [], BLOB: []}
    async with await connect(servers=place.url, timeout_seconds=TIMEOUT_SECONDS) as client:
        states = client.states
        first = await states.append("load", _command())
        await states.save("load", os.urandom(size), last_applied_index=first.index)
        for _ in range(_LOAD_COMMANDS // 1000):
            await states.append_many("load", [_command() for _ in range(1000)])
        stored = await client.put(os.urandom(size + _LOAD_COMMANDS * COMMAND_BYTES))
        for _ in range(_LOADS):
            start = time.perf_counter()
            count = await _load(client, "load")
            values[HOLDFAST].append((time.perf_counter() - start) * 1000)
            if count != _LOAD_COMMANDS:
                raise UnavailableError(f"of {_LOAD_COMMANDS} commands {count} were loaded")
            values[BLOB].append(await seconds_of(client.get(stored.digest)) * 1000)
    return [
        Figure(
            table=_LOADS_TITLE,
            sync=place.sync,
            what=LOAD,
            size=f"{size / MIB:g} MiB",
            contender=contender,
            unit="ms",
            values=found,
        )
        for contender, found in values.items()
    ]


async def _load(client: Client, name: str) -> int:
    """Load a state as a service does; how many commands came behind the save."""
    async with client.state(name, apply=_passed, save_every=_NEVER) as state:
        return state.index - state.saved_index


def _passed(state: object, _: object) -> tuple[object, None]:
    """Only loading is measured, not a service's work on commands."""
    return state, None


async def _measure_many(place: BenchPlace, states: int, say: Say) -> list[Figure]:
    """Appends to states and loads of them, while there are few, and while there are many."""
    figures = []
    async with await connect(servers=place.url, timeout_seconds=TIMEOUT_SECONDS) as client:
        made = 0
        for count in (FEW_STATES, states):
            say(f"{place.sync} sync: {count:,} states of {COMMANDS_EACH} commands each")
            new = range(made, count)
            await seconds_of_each(new, IN_FLIGHT, lambda number: _make(client, number))
            made = count
            chosen = [f"many/{number * 7919 % count}" for number in range(_SAMPLE)]
            for what, p50 in (
                ("append", await _p50(chosen, lambda name: client.states.append(name, 1))),
                ("load", await _p50(chosen, lambda name: _load(client, name))),
            ):
                figures.append(
                    Figure(
                        table=_MANY,
                        sync=place.sync,
                        what=f"{what}, {count:,} states",
                        unit="p50 ms",
                        values=[p50],
                    )
                )
    return figures


async def _make(client: Client, number: int) -> None:
    name = f"many/{number}"
    half = [_command() for _ in range(COMMANDS_EACH // 2)]
    saved = (await client.states.append_many(name, half))[-1]
    await client.states.save(name, {"number": number}, last_applied_index=saved.index)
    await client.states.append_many(name, half)


async def _p50(names: list[str], call: Callable[[str], Awaitable[object]]) -> float:
    return percentile([await seconds_of(call(name)) * 1000 for name in names], 50)
