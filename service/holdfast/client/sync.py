"""The client for scripts: the same calls, without ``await``.

A thread of its own runs the event loop, so it also works where a loop is already running.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, cast

from holdfast.client.blocking import Blocking, blocking, describe, iterating
from holdfast.client.care import Care
from holdfast.client.client import Client, connect
from holdfast.client.from_thread import DaemonThread
from holdfast.client.loop_thread import LoopThread
from holdfast.client.names import Names
from holdfast.client.snapshots.api import Snapshots
from holdfast.client.snapshots.retention import SnapshotRetention
from holdfast.client.states.api import States
from holdfast.client.states.machine import StateMachine
from holdfast.errors import OutcomeUnknownError, UnavailableError
from holdfast.protocol.blobs import DEFAULT_TYPE, BlobStored

if TYPE_CHECKING:
    from holdfast.client.sources import Source
    from holdfast.errors import HoldfastError

_END: Final = object()


class SyncSnapshots(Blocking[Snapshots]):
    """See ``Snapshots``. Callbacks run in the client's thread."""

    create = blocking(Snapshots.create)
    restore = blocking(Snapshots.restore)
    create_from = blocking(Snapshots.create_from)
    restore_to = blocking(Snapshots.restore_to)
    list = iterating(Snapshots.list)
    newest = blocking(Snapshots.newest)
    get = blocking(Snapshots.get)
    get_restore = blocking(Snapshots.get_restore)
    files = iterating(Snapshots.files)
    diff = iterating(Snapshots.diff)
    read = blocking(Snapshots.read)
    stream = iterating(Snapshots.stream)
    read_to = blocking(Snapshots.read_to)
    export = iterating(Snapshots.export)
    export_to = blocking(Snapshots.export_to)
    verify = iterating(Snapshots.verify)
    link = blocking(Snapshots.link)
    delete = blocking(Snapshots.delete)
    purge = blocking(Snapshots.purge)


class SyncSnapshotRetention(Blocking[SnapshotRetention]):
    """See ``SnapshotRetention``."""

    prune = blocking(SnapshotRetention.prune)
    prune_all = iterating(SnapshotRetention.prune_all)
    hold = blocking(SnapshotRetention.hold)
    release = blocking(SnapshotRetention.release)
    policy = blocking(SnapshotRetention.policy)
    set_policy = blocking(SnapshotRetention.set_policy)


class SyncNames(Blocking[Names]):
    """See ``Names``. Callbacks run in the client's thread."""

    create = blocking(Names.create)
    replace = blocking(Names.replace)
    put = blocking(Names.put)
    copy = blocking(Names.copy)
    rename = blocking(Names.rename)
    delete = blocking(Names.delete)
    restore = blocking(Names.restore)
    get = blocking(Names.get)
    stream = iterating(Names.stream)
    get_to = blocking(Names.get_to)
    stat = blocking(Names.stat)
    list = iterating(Names.list)
    link = blocking(Names.link)
    history = blocking(Names.history)
    versions = iterating(Names.versions)
    rules = blocking(Names.rules)
    set_rules = blocking(Names.set_rules)


class SyncCare(Blocking[Care]):
    """See ``Care``."""

    scrub = blocking(Care.scrub)
    doctor = blocking(Care.doctor)
    usage = blocking(Care.usage)


class SyncStates(Blocking[States]):
    """See ``States``."""

    append = blocking(States.append)
    append_many = blocking(States.append_many)
    replay = iterating(States.replay)
    page = blocking(States.page)
    first_index = blocking(States.first_index)
    follow = iterating(States.follow)
    trim = blocking(States.trim)
    repair = blocking(States.repair)
    save = blocking(States.save)
    save_json = blocking(States.save_json)
    save_from = blocking(States.save_from)
    latest = blocking(States.latest)
    at = blocking(States.at)
    read_to = blocking(States.read_to)
    record = blocking(States.record)
    found = blocking(States.found)
    verify = blocking(States.verify)
    saves = iterating(States.saves)
    list = iterating(States.list)
    remove = blocking(States.remove)
    policy = blocking(States.policy)
    set_policy = blocking(States.set_policy)


class SyncStateMachine(Blocking[StateMachine]):
    """See ``StateMachine``. ``apply`` runs in the client's thread."""

    def __enter__(self) -> Self:
        self._thread.run(self._wrapped.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._thread.is_usable:
            self._thread.run(self._wrapped.__aexit__(kind, *rest))

    @property
    def state(self) -> Any:
        """See ``StateMachine``. In the client's thread ``apply`` may change it meanwhile."""
        return self._wrapped.state

    @property
    def index(self) -> int:
        """See ``StateMachine``."""
        return self._wrapped.index

    @property
    def hlc(self) -> str:
        """See ``StateMachine``."""
        return self._wrapped.hlc

    @property
    def saved_index(self) -> int:
        """See ``StateMachine``."""
        return self._wrapped.saved_index

    @property
    def save_error(self) -> HoldfastError | None:
        """See ``StateMachine``."""
        return self._wrapped.save_error

    append = blocking(StateMachine.append)
    append_many = blocking(StateMachine.append_many)
    refresh = blocking(StateMachine.refresh)
    until = blocking(StateMachine.until)
    save = blocking(StateMachine.save)


@functools.wraps(Client.put_many)
def _put_many(
    client: Client,
    sources: Iterable[Source] | AsyncIterable[Source],
    *,
    type: str = DEFAULT_TYPE,  # noqa: A002  (the wire's word)
) -> AsyncGenerator[BlobStored]:
    ready = sources if isinstance(sources, AsyncIterable) else _in_threads(sources)
    return client.put_many(ready, type=type)


def _state(self: Blocking[Client], *args: Any, **kwargs: Any) -> SyncStateMachine:
    return SyncStateMachine(self._wrapped.state(*args, **kwargs), self._thread)


class SyncClient(Blocking[Client]):
    """See ``Client``: every method has the same arguments, result and errors."""

    def __init__(self, wrapped: Client, thread: LoopThread) -> None:
        """Made by ``connect_sync``."""
        super().__init__(wrapped, thread)
        self.names = SyncNames(wrapped.names, thread)
        self.snapshots = SyncSnapshots(wrapped.snapshots, thread)
        self.retention = SyncSnapshotRetention(wrapped.retention, thread)
        self.care = SyncCare(wrapped.care, thread)
        self.states = SyncStates(wrapped.states, thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end the thread. May be repeated.

        Calls of other threads end with an error. Does nothing in a process that was forked.
        """
        if self._thread.is_usable:
            with suppress(UnavailableError, OutcomeUnknownError):  # another thread closes it, too
                self._thread.run(self._wrapped.aclose())
        self._thread.close()

    put = blocking(Client.put)
    put_many = iterating(_put_many)
    get = blocking(Client.get)
    stream = iterating(Client.stream)
    get_to = blocking(Client.get_to)
    has = blocking(Client.has)
    stat = blocking(Client.stat)
    list = iterating(Client.list)
    delete = blocking(Client.delete)
    link = blocking(Client.link)
    use_link = blocking(Client.use_link)
    verify = iterating(Client.verify)
    collect = blocking(Client.collect)
    watch = iterating(Client.watch)
    position = blocking(Client.position)
    store_status = blocking(Client.store_status)

    state = describe(_state, Client.state, "SyncStateMachine")
    workers = blocking(Client.workers)


async def _in_threads[T](items: Iterable[T]) -> AsyncGenerator[T]:
    """``items``, which may block, and may even use the client that they are for."""
    iterator, thread = iter(items), DaemonThread("holdfast-items")
    try:
        while (item := await thread.do(lambda: next(iterator, _END))) is not _END:
            yield cast("T", item)
    finally:
        thread.end()


def _connecting[**P](
    connect: Callable[P, Coroutine[Any, Any, Client]],
) -> Callable[P, SyncClient]:
    def connect_sync(*args: P.args, **kwargs: P.kwargs) -> SyncClient:
        thread = LoopThread()
        try:
            client = thread.run(connect(*args, **kwargs))
        except BaseException:
            thread.close()
            raise
        return SyncClient(client, thread)

    return describe(connect_sync, connect, "SyncClient")


connect_sync = _connecting(connect)
