"""An open state whose log becomes another, or that is closed: nobody goes on unaware, or waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, override

import pytest
from tests.client.conftest import SECONDS, another

from holdfast.client.states import machine
from holdfast.client.states.appending import Appends
from holdfast.client.states.following import followed
from holdfast.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from tests.deployment import Deployment

    from holdfast.client import Client
    from holdfast.client.requests import Requester
    from holdfast.client.states.appending import ToAppend
    from holdfast.client.states.following import ReadLog
    from holdfast.client.states.machine import StateMachine
    from holdfast.client.states.values import LogCommand
    from holdfast.protocol.states import Appended

pytestmark = pytest.mark.nats


@pytest.fixture
def may_follow(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once open states hear of what others append: until then no worker tells it."""
    event = asyncio.Event()

    async def later(
        requester: Requester, log: ReadLog, from_index: int
    ) -> AsyncGenerator[Sequence[LogCommand]]:
        await event.wait()
        async for batch in followed(requester, log, from_index):
            yield batch

    monkeypatch.setattr(machine, "followed", later)
    return event


@pytest.fixture
def late_refusals(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Set once a worker has said that there is no log, and once that may be heard."""
    is_refused, may_hear = asyncio.Event(), asyncio.Event()

    async def later(
        requester: Requester, log: ReadLog, from_index: int
    ) -> AsyncGenerator[Sequence[LogCommand]]:
        try:
            async for batch in followed(requester, log, from_index):
                yield batch
        except NotFoundError:
            is_refused.set()
            await may_hear.wait()
            raise

    monkeypatch.setattr(machine, "followed", later)
    return is_refused, may_hear


def opened(client: Client, name: str) -> StateMachine:
    """A list of commands."""
    return client.state(name, apply=lambda state, command: [*state, command], initial=[])


class Told(Appends):
    """What is appended is told once it may be."""

    def __init__(self, requester: Requester) -> None:
        super().__init__(requester)
        self.is_appended, self.may_tell = asyncio.Event(), asyncio.Event()
        self.may_tell.set()

    @override
    async def append(self, name: str, one: ToAppend, *, ordered: bool) -> tuple[Appended, int]:
        answer = await super().append(name, one, ordered=ordered)
        self.is_appended.set()
        await self.may_tell.wait()
        return answer


async def test_an_append_that_makes_the_log_while_it_is_asked_for_is_no_removal(
    holdfast: Client,
    deployment: Deployment,
    name: str,
    late_refusals: tuple[asyncio.Event, asyncio.Event],
) -> None:
    is_refused, may_hear = late_refusals
    async with another(deployment) as other, opened(holdfast, name) as state:
        await is_refused.wait()
        await state.append("a")
        may_hear.set()
        await other.states.append(name, "b")
        await state.until(2)

        assert state.state == ["a", "b"]


async def test_own_commands_that_were_taken_back_before_the_log_was_followed_end_it(
    holdfast: Client, deployment: Deployment, name: str, may_follow: asyncio.Event
) -> None:
    async with another(deployment) as other, opened(holdfast, name) as state:
        await state.append_many([1, 2, 3])
        await state.append(4)
        await other.states.repair(name, 4)
        await other.states.append_many(name, ["other", "others"])
        may_follow.set()

        with pytest.raises(ConflictError):
            await state.until(5)

        assert state.state == [1, 2, 3, 4]


async def test_a_command_that_was_taken_back_before_it_was_applied_is_a_conflict(
    holdfast: Client, deployment: Deployment, name: str, may_follow: asyncio.Event
) -> None:
    async with another(deployment) as other, opened(holdfast, name) as state:
        await state.append(1)
        await other.states.append(name, "gap")
        told = holdfast.states.appends = Told(holdfast.requester)
        own = asyncio.create_task(state.append("own"))
        await told.is_appended.wait()
        await other.states.repair(name, 2)
        await other.states.append_many(name, [2, 3, 4])
        may_follow.set()

        with pytest.raises(ConflictError):
            await own

        assert state.state == [1]


async def test_commands_whose_answer_comes_after_they_were_taken_back_are_a_conflict(
    holdfast: Client, deployment: Deployment, name: str, may_follow: asyncio.Event
) -> None:
    async with another(deployment) as other, opened(holdfast, name) as state:
        await state.append(1)
        told = holdfast.states.appends = Told(holdfast.requester)
        told.may_tell.clear()
        first = asyncio.create_task(state.append("first"))
        await told.is_appended.wait()
        told.is_appended.clear()
        second = asyncio.create_task(state.append("second"))
        await told.is_appended.wait()
        await other.states.repair(name, 2)
        await other.states.append(name, 2)
        may_follow.set()
        await state.until(2)
        told.may_tell.set()

        for own in (first, second):
            with pytest.raises(ConflictError):
                await own

        assert await state.append(3) == [1, 2, 3]


@pytest.mark.usefixtures("may_follow")
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_refresh_is_a_conflict_where_the_log_is_another_whatever_its_length(
    count: int, holdfast: Client, deployment: Deployment, name: str
) -> None:
    async with another(deployment) as other, opened(holdfast, name) as state:
        await state.append_many([1, 2])
        await other.states.remove(name)
        await other.states.append_many(name, ["other"] * count)

        with pytest.raises(ConflictError):
            await state.refresh()


@pytest.mark.usefixtures("may_follow")
async def test_whoever_waits_when_the_state_is_closed_is_told(
    holdfast: Client, deployment: Deployment, name: str
) -> None:
    async with another(deployment) as other:
        async with opened(holdfast, name) as state:
            await other.states.append(name, "gap")
            waiting = asyncio.create_task(state.until(1))
            told = holdfast.states.appends = Told(holdfast.requester)
            behind = asyncio.create_task(state.append("behind the gap"))
            await told.is_appended.wait()
            told.is_appended.clear()
            told.may_tell.clear()
            late = asyncio.create_task(state.append("told when it is closed"))
            await told.is_appended.wait()

        told.may_tell.set()
        async with asyncio.timeout(SECONDS):
            with pytest.raises(InvalidError):
                await waiting
            for own in (behind, late):
                with pytest.raises(OutcomeUnknownError):
                    await own


async def test_whoever_waits_when_the_client_is_closed_is_told(
    deployment: Deployment, name: str
) -> None:
    async with another(deployment) as client, opened(client, name) as state:
        waiting = asyncio.create_task(state.until(1))
        await client.aclose()

        with pytest.raises(UnavailableError):
            await waiting
