"""The node for what only one node can do: archive an app, write to its directory.

Silence is not a no: a node may be restarting or slow. Only answers count, so that a request that
might be answered a moment later is not refused for good, and no second copy of an app is made
because the first one's node was silent.

Why: docs/decisions.md, "Who has an app".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from holdfast.domain.names import check_app
from holdfast.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.repository.snapshots.apps import Apps


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Answers of workers with a directory of apps, each naming its node.

    ``yes`` is the first that did; the others are complete only without it. ``unsure`` are those
    whose directory of apps does not tell, ``missed`` those that answered lately and did not now.
    """

    yes: str | None = None
    no: frozenset[str] = frozenset()
    unsure: frozenset[str] = frozenset()
    missed: frozenset[str] = frozenset()

    @property
    def any(self) -> bool:
        """Whether anybody said anything."""
        return self.yes is not None or bool(self.no or self.unsure)


class AppPeers(Protocol):
    """The other workers of the pool, and this one as they see it."""

    async def ask(self, *, app: str | None = None, node: str | None = None) -> Answers:
        """Ask workers that have apps, of ``node`` if given, whether they have ``app``."""


class Placement:
    """Decides, asking the pool where this worker's apps do not tell."""

    def __init__(
        self,
        apps: Apps,
        peers: AppPeers,
        *,
        node: str,
        last_node: Callable[[str], Awaitable[str]],
    ) -> None:
        """``apps`` and ``node`` are this worker's.

        ``last_node`` is where the newest snapshot of an app was made; empty if there is none.
        """
        self._apps = apps
        self._peers = peers
        self._node = node
        self._last_node = last_node

    async def node_of_app(self, app: str, node: str | None) -> str | None:
        """The node to which a request for ``app`` goes on; None: it is for this worker.

        Raises InvalidError, NotFoundError (all that answer said no), UnavailableError (nobody
        answers, of ``node`` if given, or not the one where it was, or one cannot tell).
        """
        check_app(app)
        mine = await self._look(app) if node in {None, self._node} else Answers()
        if mine.yes is not None:
            return None
        found = await self._peers.ask(app=app, node=node)
        if found.yes is not None:
            return found.yes
        _check_sure(app, mine.unsure | found.unsure)
        if not mine.no | found.no:
            raise UnavailableError(_NOBODY if node is None else _nobody_on(node))
        if node is None:
            await self._check_heard(app, mine.no | found.no, found.missed)
        where = "that answers has" if node is None else f"of {node} has"
        raise NotFoundError(f"no worker {where} an app {app!r}")

    async def _check_heard(self, app: str, no: frozenset[str], missed: frozenset[str]) -> None:
        """Raises UnavailableError if a node that may have the app has not said that it has not."""
        last = await self._last_node(app)
        if last and last not in no:
            msg = f"the app {app!r} was last seen on {last}, which does not answer: try again"
            raise UnavailableError(msg)
        if missed - no:
            msg = f"{min(missed - no)} may have an app {app!r} and does not answer: try again"
            raise UnavailableError(msg)

    async def node_for_restore(self, app: str, node: str | None, made_on: str) -> str | None:
        """The node where to restore ``app``: that asked for, or where it is, or where it was.

        ``made_on`` is where the snapshot was made, or empty: then this node does, or any.
        None: this one. Raises InvalidError, UnavailableError rather than take another.
        """
        if node is not None:
            return await self._answering(node)
        mine = await self._look(app)
        if mine.yes is not None:
            return None
        found = await self._peers.ask(app=app)
        if found.yes is not None:
            return found.yes
        _check_sure(app, mine.unsure | found.unsure)
        if made_on:
            return await self._where_it_was(made_on, found)
        if self._apps.root is not None:
            return None
        if not found.no:
            raise UnavailableError(_NOBODY)
        return min(found.no)

    async def _where_it_was(self, made_on: str, found: Answers) -> str | None:
        if made_on in found.no and made_on != self._node:
            return made_on
        try:
            return await self._answering(made_on)
        except UnavailableError as error:
            msg = (
                f"the snapshot was made on {made_on}, which does not answer: "
                "say with `node` where to restore it, or try again"
            )
            raise UnavailableError(msg) from error

    async def _answering(self, node: str) -> str | None:
        """``node``, or None if it is this one. Raises UnavailableError when it does not answer."""
        if node == self._node and self._apps.root is not None:
            return None
        if not (await self._peers.ask(node=node)).any:
            raise UnavailableError(_nobody_on(node))
        return node

    async def _look(self, app: str) -> Answers:
        """This worker's own answer. Raises InvalidError."""
        me = frozenset({self._node})
        try:
            if await self._apps.look_for(app):
                return Answers(yes=self._node)
        except UnavailableError:
            return Answers(unsure=me)
        return Answers(no=me) if self._apps.root is not None else Answers()


_NOBODY: Final = "no worker with a directory of apps answers"


def _nobody_on(node: str) -> str:
    return f"no worker with apps answers for the node {node}"


def _check_sure(app: str, unsure: frozenset[str]) -> None:
    if unsure:
        raise UnavailableError(f"{min(unsure)} cannot tell now whether it has an app {app!r}")
