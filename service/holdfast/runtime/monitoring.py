"""The state of nats-servers: from their greeting, and where they are monitored.

A server's greeting says little of it and nothing of the others. Only ``/varz`` tells which failures
its writes survive, and how many servers there are.

Why: docs/decisions.md, "Who says that writes are synced".
"""

from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.error import URLError

import msgspec

from holdfast.domain.findings import StreamCount
from holdfast.domain.store_state import Durability, ServerState, Silent, durability_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ASK_SECONDS: Final = 3.0
_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024


class _JetStreamConfig(msgspec.Struct):
    sync_always: bool = False


class _Meta(msgspec.Struct):
    cluster_size: int = 1


class _JetStreamVarz(msgspec.Struct):
    config: _JetStreamConfig | None = None
    meta: _Meta | None = None


class _ClusterVarz(msgspec.Struct):
    name: str = ""


class _Varz(msgspec.Struct):
    server_id: str
    version: str
    max_payload: int
    server_name: str = ""
    cluster: _ClusterVarz = msgspec.field(default_factory=_ClusterVarz)
    jetstream: _JetStreamVarz = msgspec.field(default_factory=_JetStreamVarz)


class _StreamState(msgspec.Struct):
    messages: int = 0
    bytes: int = 0
    last_seq: int = 0
    num_deleted: int = 0


class _StreamDetail(msgspec.Struct):
    name: str
    state: _StreamState


class _Account(msgspec.Struct):
    stream_detail: list[_StreamDetail] = []


class _Jsz(msgspec.Struct):
    account_details: list[_Account] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The server that is connected to, those that ``told`` of themselves, and the silent ones."""

    connected: ServerState
    told: tuple[ServerState, ...] = ()
    silent: tuple[Silent, ...] = ()

    @property
    def known(self) -> tuple[ServerState, ...]:
        """Each one once; what it tells of itself goes before its greeting."""
        names = {server.name for server in self.told}
        return self.told if self.connected.name in names else (*self.told, self.connected)

    @property
    def durability(self) -> Durability:
        """Their writes' durability."""
        return durability_of(self.told, self.silent)


async def see_servers(greeting: Mapping[str, Any], monitor_urls: Sequence[str]) -> Servers:
    """The servers behind ``monitor_urls``, and the one that sent ``greeting``. Never raises.

    One that does not answer within three seconds counts as silent.
    """
    answers = await asyncio.gather(*(_ask(url) for url in monitor_urls))
    told = {answer.name: answer for answer in answers if isinstance(answer, ServerState)}
    silent = tuple(answer for answer in answers if isinstance(answer, Silent))
    return Servers(connected=greeted(greeting), told=tuple(told.values()), silent=silent)


async def stream_counts(
    monitor_urls: Sequence[str], streams: Sequence[str]
) -> tuple[StreamCount, ...]:
    """The copies of ``streams`` at each server behind ``monitor_urls``. Never raises."""
    answers = await asyncio.gather(*(_count(url, streams) for url in monitor_urls))
    return tuple(count for answer in answers for count in answer)


async def _count(monitor_url: str, streams: Sequence[str]) -> list[StreamCount]:
    """Nothing of a server that does not answer: that is told elsewhere."""
    try:
        found = await _fetch(monitor_url, "jsz?accounts=1&streams=1", _Jsz)
    except (OSError, ValueError, HTTPException, msgspec.MsgspecError):
        return []
    details = [one for account in found.account_details for one in account.stream_detail]
    return [
        StreamCount(
            server=monitor_url,
            stream=one.name,
            last=one.state.last_seq,
            messages=one.state.messages,
            bytes=one.state.bytes,
            deleted=one.state.num_deleted,
        )
        for one in details
        if one.name in streams
    ]


def greeted(greeting: Mapping[str, Any]) -> ServerState:
    """A server's state by INFO. Without a cluster, and with JetStream, it is the only one."""
    has_jetstream = bool(greeting.get("jetstream"))
    alone = has_jetstream and not greeting.get("cluster")
    return ServerState(
        name=str(greeting.get("server_name", "")),
        version=str(greeting.get("version", "0")),
        cluster=str(greeting.get("cluster", "")),
        max_payload=greeting.get("max_payload"),
        jetstream=has_jetstream,
        cluster_size=1 if alone else None,
    )


async def _ask(monitor_url: str) -> ServerState | Silent:
    try:
        status = await _fetch(monitor_url, "varz", _Varz)
    except (OSError, ValueError, HTTPException, msgspec.MsgspecError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        return Silent(monitor_url, str(reason) or "no answer in time")
    settings = status.jetstream.config
    return ServerState(
        name=status.server_name or status.server_id,
        version=status.version,
        cluster=status.cluster.name,
        durability=_durability(settings),
        max_payload=status.max_payload,
        jetstream=settings is not None,
        cluster_size=_cluster_size(status.jetstream),
    )


def _durability(settings: _JetStreamConfig | None) -> Durability:
    if settings is None:
        return "unknown"
    return "synced" if settings.sync_always else "lazy"


def _cluster_size(jetstream: _JetStreamVarz) -> int | None:
    if jetstream.meta is not None:
        return jetstream.meta.cluster_size
    return 1 if jetstream.config is not None else None


async def _fetch[T](monitor_url: str, what: str, form: type[T]) -> T:
    async with asyncio.timeout(ASK_SECONDS):
        return await asyncio.to_thread(_read, f"{monitor_url.rstrip('/')}/{what}", form)


def _read[T](url: str, form: type[T]) -> T:
    with urllib.request.urlopen(url, timeout=ASK_SECONDS) as answer:  # noqa: S310  (http only, by config)
        return msgspec.json.decode(answer.read(_MAX_ANSWER_BYTES), type=form)
