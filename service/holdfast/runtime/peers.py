"""Workers ask each other for an app on ``snapshot.where``.

Every worker with a directory of apps listens there, outside the queue group. If it is of the node
that was asked for, it answers whether it has the app that was asked for, or that it cannot tell.
Silence means nothing: ``repository.snapshots.placement`` says what follows from the answers.

A node is one place. Two workers of one name with different directories (a cloned machine, a name
that was given twice) would archive and restore now here, now there. So a worker that starts puts a
fresh file into its directory and asks the workers of its node whether they see it: on a shared
volume they do, wherever they run. Copies of a directory have the same content, but never that file.

A request goes on to the node that was found (``protocol.subjects.node_subject``); the worker there
answers the caller itself. The subject is for workers: its messages are no part of the wire's
promise.

Why: docs/decisions.md, "One directory for each node".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from holdfast.errors import ForbiddenError, HoldfastError, UnavailableError
from holdfast.protocol.subjects import prefixed
from holdfast.repository.snapshots.placement import Answers
from holdfast.transport.inbox import Inbox, NoRespondersError, raise_for_status

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from holdfast.repository.snapshots.apps import Apps
    from holdfast.sources import Sources
    from holdfast.transport.connection import Connection
    from holdfast.transport.message import Message

WHERE_SUBJECT: Final = "snapshot.where"
WHERE_SECONDS: Final = 1.0
"""Time to wait for answers: a worker whose directory takes longer says so before."""

COMPARISONS: Final = 3
"""Looks for a mark before it is believed not to be there: over a network it may be seen late.
"""

CLOCKS_DIFFER_SECONDS: Final = 2.0
"""Difference allowed of two workers' clocks. An answer takes up to a second."""

MISSED_SECONDS: Final = 300.0
"""A node that answered within this time, and does not now, is missed: it may be restarting."""

LOOK_SECONDS: Final = 60.0
"""Time between looks for workers."""

FLUSH_SECONDS: Final = 10
MARK_SECONDS: Final = 10.0
LOOK_SECONDS_AT_MOST: Final = 0.5
"""For a look at the directory of apps, so that the answer comes in time."""

MAX_NODES: Final = 10_000
MAX_ANSWERING: Final = 64
log = structlog.get_logger(__name__)


class Where(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ask for workers of ``node``, if given, and with ``app``, if given.

    With ``mark``, also whether it is seen: ``worker`` starts, and has it in its directory.
    """

    app: str | None = None
    node: str | None = None
    mark: str | None = None
    worker: str = ""


class Here(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker of ``node`` has it, or has it not; None: it cannot tell.

    ``sees``: whether it sees the mark. ``starts``: it has not yet made sure that it is alone.
    ``at`` is its clock, in seconds since 1970; 0, as that of older versions, says nothing.
    """

    node: str
    has: bool | None
    worker: str = ""
    sees: bool | None = None
    starts: bool = False
    at: float = 0.0


class Peers:
    """The other workers of the pool, and this one as they see it."""

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        apps: Apps,
        *,
        node: str,
        worker: str,
        prefix: str,
        reply: re.Pattern[str],
        sources: Sources,
    ) -> None:
        """``apps`` are this worker's, ``worker`` is its id, ``reply`` the subjects it answers."""
        self._connection = connection
        self._inbox = inbox
        self._apps = apps
        self._node = node
        self._worker = worker
        self._clock = sources.clock
        self._starts = True
        self._serves = False
        self._rivals: set[str] = set()
        self._ahead: dict[str, float] = {}
        self._reply = reply
        self._subject = prefixed(prefix, WHERE_SUBJECT)
        self._monotonic = sources.monotonic
        self._seen_at: dict[str, float] = {}
        self._sid: int | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def check_node(self) -> None:
        """Whether the workers of this node have the directory that this one has.

        One of two that start at the same moment goes on. Raises UnavailableError with what to
        change.
        """
        if self._apps.root is None:
            return
        self._listen()
        await self._connection.wait_flushed(FLUSH_SECONDS)
        apps = self._apps
        if await apps.look(lambda: apps.put_mark(self._worker), seconds=MARK_SECONDS):
            try:
                await self._look_for_twins()
            finally:
                with suppress(UnavailableError):
                    await apps.look(lambda: apps.remove_mark(self._worker), seconds=MARK_SECONDS)
        else:
            log.warning("node_not_compared", node=self._node, root=str(apps.root))
        self._starts = False

    async def _look_for_twins(self) -> None:
        where = Where(node=self._node, mark=self._worker, worker=self._worker)
        for _ in range(COMPARISONS):
            said = _Said(wants_all=True)
            await self._ask(where, said)
            if not self._rivals and not any(map(self._stays, said.elsewhere)):
                return
        self.stop()
        raise UnavailableError(_TWICE.format(self._node))

    def _stays(self, other: Here) -> bool:
        """Whether of two workers with one name it is the ``other`` that stays."""
        return not other.starts or other.worker < self._worker

    def start(self) -> None:
        """Answer others, if this worker has apps."""
        self._listen()
        self._serves = True

    def _listen(self) -> None:
        if self._apps.root is not None and self._sid is None:
            self._sid = self._connection.route(self._subject, self._receive)

    def stop(self) -> None:
        """Answer no more: others are not to forward anything here."""
        if self._sid is not None:
            self._connection.unroute(self._sid)
            self._sid = None

    async def look(self) -> None:
        """Take note of who is there, and of the time there. To be called every ``LOOK_SECONDS``."""
        said = _Said(wants_all=True, clock=self._clock)
        await self._ask(Where(), said)
        self._ahead = said.ahead
        for node, ahead in said.ahead.items():
            if abs(ahead) > CLOCKS_DIFFER_SECONDS:
                log.warning("clocks_differ", node=node, ahead_seconds=round(ahead, 1))

    def clocks(self, off: timedelta) -> dict[str, timedelta]:
        """The error of clocks, by their nodes, where this worker's is ``off``.

        Other nodes, if they have apps, are as the last look has shown them.
        """
        others = {node: off + timedelta(seconds=ahead) for node, ahead in self._ahead.items()}
        return others | {self._node: off}

    async def ask(self, *, app: str | None = None, node: str | None = None) -> Answers:
        """See `placement.AppPeers`. Returns at the first yes, else when time is up."""
        return await self._ask(Where(app=app, node=node), _Said())

    async def _ask(self, where: Where, said: _Said) -> Answers:
        mailbox = self._inbox.open(said.receive, self._subject)
        try:
            question = msgspec.json.encode(where)
            self._connection.send(self._subject, question, reply=mailbox.subject)
            with suppress(TimeoutError):
                async with asyncio.timeout(WHERE_SECONDS):
                    await said.settled.wait()
            if said.from_server is not None:
                self._check_asked(said.from_server)
            missed = self._missed(said.heard)
            return said.answers(missed if where.node is None else frozenset())
        finally:
            mailbox.close()

    def _missed(self, heard: set[str]) -> frozenset[str]:
        """The nodes not among those ``heard``, which are noted, but heard lately."""
        now = self._monotonic()
        self._seen_at |= dict.fromkeys(heard, now)
        self._seen_at = {
            node: at
            for node, at in list(self._seen_at.items())[-MAX_NODES:]
            if now - at < MISSED_SECONDS
        }
        return frozenset(self._seen_at.keys() - heard)

    def _check_asked(self, message: Message) -> None:
        """Raises UnavailableError unless it says that nobody listens, which is an answer."""
        try:
            raise_for_status(message, self._subject)
        except NoRespondersError:
            return
        except (ForbiddenError, TimeoutError) as error:
            raise UnavailableError("the workers that have apps could not be asked") from error

    def _receive(self, message: Message) -> None:
        if self._reply.fullmatch(message.reply) is None:
            return
        if len(self._answering) >= MAX_ANSWERING:
            self._say(message.reply, has=None)
            return
        task = asyncio.create_task(self._answer(message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, message: Message) -> None:
        try:
            question = msgspec.json.decode(message.data, type=Where)
            if question.node not in {None, self._node} or question.worker == self._worker:
                return
            if question.mark is not None:
                await self._compare(message.reply, question, question.mark)
                return
            if not self._serves:
                return
            has = question.app is None or await self._apps.look_for(question.app)
        except UnavailableError as error:
            log.warning("apps_not_read", error=error.detail)
            self._say(message.reply, has=None)
        except (HoldfastError, msgspec.MsgspecError) as error:
            log.info("where_not_answered", error=type(error).__name__)
        else:
            self._say(message.reply, has=has)

    async def _compare(self, reply: str, question: Where, mark: str) -> None:
        """Tell a worker that starts whether its mark is seen here; or yield to it."""
        sees = await self._apps.look(lambda: self._apps.sees(mark), seconds=LOOK_SECONDS_AT_MOST)
        if sees:
            self._rivals.discard(question.worker)
        elif self._starts and question.worker < self._worker:
            self._rivals.add(question.worker)
        self._say(reply, has=None, sees=sees)

    def _say(self, reply: str, *, has: bool | None, sees: bool | None = None) -> None:
        here = Here(
            node=self._node,
            has=has,
            worker=self._worker,
            sees=sees,
            starts=self._starts,
            at=self._clock().timestamp(),
        )
        try:
            self._connection.send(reply, msgspec.json.encode(here))
        except HoldfastError as error:
            log.info("where_not_answered", error=type(error).__name__)


_TWICE: Final = (
    "another worker of node {} has another directory of apps: give each machine a `node` of its"
    " own, or its workers the same directory"
)


class _Said:
    """The answers to one question as they come in."""

    def __init__(
        self, *, wants_all: bool = False, clock: Callable[[], datetime] | None = None
    ) -> None:
        """``wants_all``: not only until somebody says yes. ``clock`` is to be compared."""
        self._clock = clock
        self.elsewhere: list[Here] = []
        self.ahead: dict[str, float] = {}
        self.settled = asyncio.Event()
        self.heard: set[str] = set()
        self._wants_all = wants_all
        self.from_server: Message | None = None
        self._nodes: dict[bool | None, dict[str, None]] = {True: {}, False: {}, None: {}}

    def receive(self, message: Message) -> None:
        """Take an answer."""
        if not message.data:  # from the server: nobody listens, or none can answer
            self.from_server = message
            self.settled.set()
            return
        try:
            here = msgspec.json.decode(message.data, type=Here)
        except msgspec.MsgspecError:
            log.warning("where_answer_not_understood")
            return
        if here.sees is not None:
            if not here.sees:
                self.elsewhere.append(here)
            return
        self.heard.add(here.node)
        if here.at and self._clock is not None and len(self.ahead) < MAX_NODES:
            self.ahead[here.node] = here.at - self._clock().timestamp()
        self._nodes[here.has][here.node] = None
        if here.has and not self._wants_all:
            self.settled.set()

    def answers(self, missed: frozenset[str]) -> Answers:
        """The answers until now, and the nodes ``missed`` that were expected to answer."""
        return Answers(
            yes=next(iter(self._nodes[True]), None),
            no=frozenset(self._nodes[False]),
            unsure=frozenset(self._nodes[None]),
            missed=missed,
        )
