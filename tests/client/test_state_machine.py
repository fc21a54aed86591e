"""A state as one object: the same in every program that has it open, whatever becomes of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, override

import pytest
from tests.client.conftest import SECONDS, another
from tests.deployment import deployed

from holdfast.client import connect, connect_sync
from holdfast.client.states.saving import Saves
from holdfast.domain.limits import MIB
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InternalError,
    InvalidError,
    NotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deployment import Deployment

    from holdfast.client import Client
    from holdfast.client.states.api import States
    from holdfast.client.states.machine import StateMachine
    from holdfast.protocol.states import LoadedState
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats


@pytest.fixture(scope="module", params=["jetstream", pytest.param("disk", marks=pytest.mark.long)])
def deployment(
    request: pytest.FixtureRequest,
    nats_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """Two workers, which serve for as long as the module's tests run, on each kind of store."""
    directory = tmp_path_factory.mktemp("disk")
    store = "nats://blobs" if request.param == "jetstream" else f"disk://{directory}/store"
    with deployed(nats_server.url, "one", "two", store=store) as deployment:
        yield deployment


def listed(state: list[Any], command: Any) -> tuple[list[Any], int]:
    """Adds the command to a list, in place; how many there are."""
    state.append(command)
    return state, len(state)


def summed(state: int, command: int) -> int:
    """The sum of all commands."""
    return state + command


def opened(client: Client, name: str, **options: Any) -> StateMachine:
    """A list of commands."""
    return client.state(name, apply=listed, initial=[], **options)


async def test_append_gives_what_apply_says_of_the_command(holdfast: Client, name: str) -> None:
    async with opened(holdfast, name) as state:
        results = [await state.append(command) for command in ("a", b"b", {"c": 1})]

        assert results == [1, 2, 3]
        assert state.state == ["a", b"b", {"c": 1}]
        assert state.index == 3


async def test_apply_may_give_the_new_state_alone(holdfast: Client, name: str) -> None:
    async with holdfast.state(name, apply=summed, initial=0) as state:
        assert await state.append(2) == 2
        assert await state.append_many([3, 4]) == [5, 9]
        assert state.state == 9


async def test_commands_are_applied_as_the_log_has_them(holdfast: Client, name: str) -> None:
    initial: list[Any] = []

    async with holdfast.state(name, apply=listed, initial=initial) as state:
        await state.append({"tuple": (1, 2)})

        assert state.state == [{"tuple": [1, 2]}]
    assert initial == []


async def test_a_program_that_opens_it_later_has_all_of_it(
    holdfast: Client, deployment: Deployment, name: str
) -> None:
    async with opened(holdfast, name) as state:
        await asyncio.gather(*(state.append(number) for number in range(200)))

    async with another(deployment) as client, opened(client, name) as again:
        assert again.state == list(range(200))
        assert (again.index, again.hlc) == (state.index, state.hlc)


async def test_it_is_saved_now_and_then_and_loaded_from_there(
    holdfast: Client, deployment: Deployment, name: str
) -> None:
    applied: list[int] = []

    def counted(state: list[Any], command: int) -> list[Any]:
        applied.append(command)
        return [*state, command]

    async with opened(holdfast, name, save_every=50) as state:
        for number in range(120):
            await state.append(number)

    async with (
        another(deployment) as client,
        client.state(name, apply=counted, initial=[]) as again,
    ):
        assert state.saved_index >= 50
        assert again.saved_index == state.saved_index
        assert applied == list(range(state.saved_index, 120))
        assert again.state == list(range(120))


async def test_a_save_that_is_due_at_the_end_is_made(holdfast: Client, name: str) -> None:
    async with opened(holdfast, name, save_every=2) as state:
        await state.append_many([1, 2])

    saved = await holdfast.states.latest(name)
    assert saved is not None
    assert saved.state == [1, 2]


@pytest.mark.parametrize("save_every", [0, -1])
async def test_it_is_saved_after_some_commands_at_least(
    save_every: int, holdfast: Client, name: str
) -> None:
    with pytest.raises(InvalidError):
        opened(holdfast, name, save_every=save_every)


async def test_it_is_saved_as_often_as_its_policy_says(holdfast: Client, name: str) -> None:
    await holdfast.states.append(name, 0)
    await holdfast.states.set_policy(name, save_every=10)

    async with opened(holdfast, name) as state:
        for number in range(1, 15):
            await state.append(number)

    assert state.saved_index >= 10


@pytest.mark.parametrize("initial", [b"", "x" * 2 * MIB], ids=["bytes", "large"])
async def test_a_state_of_bytes_or_of_any_size_is_saved_and_loaded(
    initial: Any, holdfast: Client, deployment: Deployment, name: str
) -> None:
    def added(state: Any, command: Any) -> Any:
        return state + command

    async with holdfast.state(name, apply=added, initial=initial) as state:
        await state.append(type(initial)() + (b"a" if isinstance(initial, bytes) else "a"))
        await state.save()

    async with (
        another(deployment) as client,
        client.state(name, apply=added, initial=None) as again,
    ):
        assert again.state == state.state
        assert again.saved_index == 1


async def test_programs_that_append_at_once_agree_on_one_order(
    holdfast: Client, deployment: Deployment, name: str
) -> None:
    await holdfast.states.save(name, [], last_applied_index=0)
    await holdfast.states.set_policy(name, trim=False)  # nobody is left behind by a trim
    async with (
        another(deployment) as client,
        opened(holdfast, name) as one,
        opened(client, name, save_every=30) as two,
    ):
        results = await asyncio.gather(
            *(one.append(["one", number]) for number in range(100)),
            *(two.append(["two", number]) for number in range(100)),
        )
        await asyncio.gather(one.refresh(), two.refresh())

        assert one.state == two.state
        assert sorted(results) == list(range(1, 201))
        for writer in ("one", "two"):
            numbers = [number for who, number in one.state if who == writer]
            assert numbers == list(range(100))
        assert one.state[results[7] - 1] == ["one", 7]


async def test_whoever_only_looks_stays_current(
    holdfast: Client, deployment: Deployment, name: str
) -> None:
    async with another(deployment) as client, opened(client, name) as view:
        assert view.state == []
        async with opened(holdfast, name) as state:
            await state.append("a")
            await view.refresh()
            seen = list(view.state)
            await state.append("b")
            await view.until(2)

            assert (seen, view.state) == (["a"], ["a", "b"])


async def test_a_refresh_that_a_trim_overtakes_waits_for_what_was_appended_all_the_same(
    deployment: Deployment, name: str
) -> None:
    refreshing: list[asyncio.Task[None]] = []
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as others:

        def overtaken(state: list[Any], command: Any) -> list[Any]:
            """While the first command is applied, others append, save and trim."""
            if not state:
                refreshing.append(asyncio.create_task(view.refresh()))
                others.states.append_many(name, ["b", "c"])
                for index in (2, 3):
                    others.states.save(name, ["a", "b", "c"][:index], last_applied_index=index)
                others.states.trim(name, 2)
            return [*state, command]

        async with (
            another(deployment) as client,
            client.state(name, apply=overtaken, initial=[]) as view,
        ):
            others.states.append(name, "a")
            await view.until(1)
            await refreshing[0]

            assert view.state == ["a", "b", "c"]


async def test_a_command_is_appended_only_if_nobody_was_quicker(
    holdfast: Client, deployment: Deployment, name: str
) -> None:
    async with (
        another(deployment) as client,
        opened(holdfast, name) as one,
        opened(client, name) as two,
    ):
        await one.append("a", expected_index=one.index)
        await two.until(1)
        await two.append("b", expected_index=two.index)

        with pytest.raises(ConflictError) as caught:
            await one.append("c", expected_index=1)

        assert caught.value.index == 2
        await one.refresh()
        assert one.state == two.state == ["a", "b"]


async def test_the_sole_writer_is_fenced_out_by_the_next_one(
    holdfast: Client, deployment: Deployment, name: str
) -> None:
    async with opened(holdfast, name, only_writer=True) as old:
        await asyncio.gather(*(old.append(number) for number in range(20)))
        async with another(deployment) as client, opened(client, name, only_writer=True) as new:
            await new.append("new")
            with pytest.raises(ConflictError):
                await old.append("old")
            with pytest.raises(ConflictError):
                await old.append("old")
            await asyncio.gather(*(new.append(number) for number in range(20)))

            assert new.state == [*range(20), "new", *range(20)]


async def test_the_sole_writer_appends_only_behind_what_it_expects(
    holdfast: Client, name: str
) -> None:
    async with opened(holdfast, name, only_writer=True) as state:
        assert await state.append("a", expected_index="none") == 1
        assert await state.append("b", expected_index=1) == 2
        for passed in (1, "none", 0, 3):
            with pytest.raises(ConflictError) as caught:
                await state.append("c", expected_index=passed)
            assert caught.value.index == 2

        assert await state.append("c") == 3


async def test_the_sole_writer_begins_the_log_of_a_state_that_was_saved_without_one(
    holdfast: Client, name: str
) -> None:
    await holdfast.states.save(name, ["saved"], last_applied_index=10)

    async with opened(holdfast, name, only_writer=True) as state:
        await state.append("a")
        await state.append("b")

        assert (state.state, state.index) == (["saved", "a", "b"], 12)


async def test_whoever_goes_on_is_told_that_the_state_is_another(
    holdfast: Client, deployment: Deployment, name: str
) -> None:
    await holdfast.states.append(name, "old")
    async with opened(holdfast, name) as state, asyncio.timeout(SECONDS):
        await state.until(1)
        async with another(deployment) as client:
            await client.states.remove(name)
            await client.states.append_many(name, ["a", "b", "c"])
            with pytest.raises((ConflictError, NotFoundError)):
                await state.until(3)
        assert state.state == ["old"]


async def test_a_state_is_current_though_all_its_commands_were_trimmed(
    holdfast: Client, name: str
) -> None:
    async with opened(holdfast, name) as state:
        await state.append_many(["a", "b"])
        for _ in range(2):
            await state.save()
        await holdfast.states.trim(name, 2)

        await state.refresh()

        assert state.state == ["a", "b"]


class Damaged(Saves):
    """Once the state is open, what it would begin again with cannot be read."""

    error: HoldfastError
    is_open = False

    @override
    async def newest(self, name: str, known: str | None = None) -> LoadedState:
        if self.is_open:
            raise self.error
        self.is_open = True
        return await super().newest(name, known)


@pytest.mark.parametrize("error", [CorruptError("damaged"), InvalidError("refused")])
async def test_whoever_cannot_begin_again_is_told_why(
    error: HoldfastError, holdfast: Client, name: str
) -> None:
    damaged = Damaged(holdfast.requester, holdfast.names)
    damaged.error = error
    holdfast.states.saving = damaged

    async with asyncio.timeout(SECONDS), opened(holdfast, name) as state:
        with pytest.raises(type(error)):
            await state.until(1)


async def test_what_apply_raises_ends_it(holdfast: Client, name: str) -> None:
    def refuses(state: int, command: int) -> int:
        if command < 0:
            raise ValueError("less than nothing")
        return state + command

    async with holdfast.state(name, apply=refuses, initial=0) as state:
        await state.append(1)
        with pytest.raises(InternalError, match="command 2") as caught:
            await state.append(-1)
        with pytest.raises(InternalError):
            await state.append(1)

        assert isinstance(caught.value.__cause__, ValueError)
        assert (state.state, state.index) == (1, 1)
    with pytest.raises(InternalError):
        async with holdfast.state(name, apply=refuses, initial=0):
            pass


async def test_a_state_that_becomes_no_json_ends_it_when_it_is_to_be_saved(
    holdfast: Client, name: str
) -> None:
    async with holdfast.state(name, apply=lambda _, __: {1, 2}, save_every=1) as state:
        await state.append(1)

        with pytest.raises(InvalidError):
            await state.save()


async def test_it_is_used_inside_of_async_with_only(holdfast: Client, name: str) -> None:
    state = opened(holdfast, name)

    with pytest.raises(InvalidError):
        await state.append(1)
    async with state:
        await state.append(1)
    with pytest.raises(InvalidError):
        await state.append(2)
    with pytest.raises(InvalidError):
        opened(holdfast, "")


async def test_whoever_has_it_open_when_it_is_removed_is_told(holdfast: Client, name: str) -> None:
    async with asyncio.timeout(SECONDS), opened(holdfast, name) as state:
        await state.append_many([1, 2, 3])

        await holdfast.states.remove(name)

        with pytest.raises(NotFoundError):
            await state.until(4)
        with pytest.raises(NotFoundError):
            await state.append(4)


async def test_whoever_has_a_state_open_that_was_only_saved_is_told_that_another_was_begun(
    holdfast: Client, name: str
) -> None:
    await holdfast.states.save(name, ["old"] * 2, last_applied_index=2)
    async with asyncio.timeout(SECONDS), opened(holdfast, name) as state:
        await holdfast.states.remove(name)
        await holdfast.states.append_many(name, ["new"] * 4)

        with pytest.raises((ConflictError, NotFoundError)):
            await state.append("mine")
        assert state.state == ["old"] * 2


async def test_what_an_append_that_was_given_up_has_appended_is_applied_once(
    holdfast: Client, name: str
) -> None:
    async with asyncio.timeout(SECONDS), opened(holdfast, name) as state:
        await state.append(0)
        given_up = asyncio.create_task(state.append("given up"))
        other = asyncio.create_task(state.append(1))
        await asyncio.sleep(0)
        given_up.cancel()

        number = await other
        await state.append(2)

        assert state.state in ([0, "given up", 1, 2], [0, 1, 2])
        assert state.state[number - 1] == 1


async def test_it_goes_on_when_workers_are_killed(pool: Deployment) -> None:
    async with (
        asyncio.timeout(SECONDS),
        await connect(servers=pool.url, prefix=pool.prefix) as client,
        await connect(servers=pool.url, prefix=pool.prefix) as other,
        opened(client, "orders", save_every=20) as state,
        opened(other, "orders") as view,
    ):
        for number in range(60):
            if number == 30:
                pool.kill("one")
            await state.append(number)
        await view.until(60)

        assert state.state == view.state == list(range(60))


class Trimming(Saves):
    """Another program saves and trims once the newest save was asked for."""

    states: States
    is_trimmed = False

    @override
    async def newest(self, name: str, known: str | None = None) -> LoadedState:
        found = await super().newest(name, known)
        if not self.is_trimmed:
            self.is_trimmed = True
            for index in (3, 4):
                state = list(range(1, index + 1))
                await self.states.save(name, state, last_applied_index=index)
            await self.states.trim(name, 3)
        return found


async def test_whoever_is_overtaken_by_a_trim_begins_again_with_the_newest_save(
    holdfast: Client, name: str
) -> None:
    await holdfast.states.append_many(name, [1, 2, 3, 4, 5])
    await holdfast.states.save(name, [1], last_applied_index=1)
    trimming = Trimming(holdfast.requester, holdfast.names)
    trimming.states = holdfast.states
    holdfast.states.saving = trimming

    async with opened(holdfast, name) as state:
        assert state.state == [1, 2, 3, 4, 5]
        assert state.saved_index == 4


def test_it_is_there_without_await(deployment: Deployment, name: str) -> None:
    with (
        connect_sync(servers=deployment.url, prefix=deployment.prefix) as holdfast,
        holdfast.state(name, apply=listed, initial=[]) as state,
    ):
        assert [state.append("a"), *state.append_many(["b", "c"])] == [1, 2, 3]
        saved = state.save()
        state.refresh()

        assert (state.state, state.index) == (["a", "b", "c"], 3)
        assert (state.saved_index, state.save_error) == (3, None)
        assert state.hlc == saved.last_applied_hlc
