"""The rights of the users of ``deploy/nats/users.conf`` as they are shipped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio
from tests.deploy.shipped import CONFIGURATIONS, PASSWORDS, options, shipped_server
from tests.nats.tools import Told, connected, next_of, receive, until

from holdfast.bootstrap.admin import init_store
from holdfast.errors import ForbiddenError
from holdfast.transport.connection import connect
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.deploy.shipped import ShippedServer

    from holdfast.transport.connection import Connection

pytestmark = pytest.mark.nats

CLIENT_MUST_NOT_PUBLISH: Final = (
    "$O.blobs.C.x",
    "$O.blobs.M.x",
    "$O.packs.C.x",
    "$O.anything",
    "$KV.holdfast.u.x",
    "$KV.snapshots.s.x",
    "$KV.names.n.x",
    "$HF.states.x",
    "$HF.grown.states.x",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.CREATE.x",
    "$JS.API.STREAM.INFO.OBJ_blobs",
    "$JS.API.STREAM.UPDATE.OBJ_blobs",
    "$JS.API.STREAM.PURGE.OBJ_blobs",
    "$JS.API.STREAM.DELETE.OBJ_blobs",
    "$JS.API.STREAM.MSG.GET.OBJ_blobs",
    "$JS.API.STREAM.MSG.DELETE.OBJ_blobs",
    "$JS.API.STREAM.SNAPSHOT.OBJ_blobs",
    "$JS.API.STREAM.RESTORE.OBJ_blobs",
    "$JS.API.DIRECT.GET.OBJ_blobs",
    "$JS.API.DIRECT.GET.KV_snapshots.$KV.snapshots.s.x",
    "$JS.API.DIRECT.GET.KV_names",
    "$JS.API.DIRECT.GET.HF_states",
    "$JS.API.STREAM.PURGE.HF_states",
    "$JS.API.CONSUMER.CREATE.OBJ_blobs",
    "$JS.API.CONSUMER.CREATE.KV_snapshots.c.$KV.snapshots.>",
    "$JS.ACK.OBJ_blobs.c.1.1.1.1.0",
    "$JS.FC.OBJ_blobs.c.x",
    "$SYS.REQ.SERVER.PING",
    "_INBOX.somebody.1",
    "_INBOX.worker.x.1",
    "snapshot.where",
    "snapshot.on.node-1.create",
    "snapshot.progress.x",
    "anything",
)
CLIENT_MUST_NOT_SUBSCRIBE: Final = (
    (">", ""),
    (">", "q"),
    ("*.*", ""),
    ("blob.put", ""),
    ("blob.put", "q"),
    ("blob.*", "q"),
    ("blob.>", ""),
    ("blob.>", "q"),
    ("blob.part.>", ""),
    ("snapshot.create", "q"),
    ("snapshot.>", ""),
    ("snapshot.where", ""),
    ("snapshot.on.>", ""),
    ("$SRV.>", ""),
    ("$SRV.PING", ""),
    ("_INBOX.worker.>", ""),
    ("_INBOX.worker.*.*", ""),
    ("_INBOX.admin.>", ""),
    ("$O.>", ""),
    ("$KV.>", ""),
    ("$HF.>", ""),
    ("$HF.states.>", ""),
    ("$HF.grown.states.>", ""),
    ("$JS.>", ""),
    ("$SYS.>", ""),
)
WORKER_MUST_NOT_PUBLISH: Final = (
    "$O.other.C.x",
    "$KV.other.x",
    "$HF.other.x",
    "$HF.grown.other.x",
    "$JS.API.INFO.x",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.CREATE.OBJ_other",
    "$JS.API.STREAM.INFO.OBJ_other",
    "$JS.API.STREAM.UPDATE.OBJ_blobs",
    "$JS.API.STREAM.DELETE.OBJ_blobs",
    "$JS.API.STREAM.DELETE.KV_holdfast",
    "$JS.API.STREAM.PURGE.KV_holdfast",
    "$JS.API.STREAM.PURGE.KV_snapshots",
    "$JS.API.STREAM.PURGE.KV_names",
    "$JS.API.STREAM.DELETE.KV_names",
    "$JS.API.STREAM.DELETE.HF_states",
    "$JS.API.STREAM.UPDATE.HF_states",
    "$JS.API.STREAM.MSG.DELETE.HF_states",
    "$JS.API.CONSUMER.CREATE.HF_states",
    "$JS.API.STREAM.PURGE.OBJ_other",
    "$JS.API.STREAM.MSG.GET.OBJ_other",
    "$JS.API.STREAM.MSG.DELETE.OBJ_blobs",
    "$JS.API.STREAM.SNAPSHOT.OBJ_blobs",
    "$JS.API.STREAM.RESTORE.OBJ_blobs",
    "$JS.API.STREAM.LEADER.STEPDOWN.OBJ_blobs",
    "$JS.API.STREAM.PEER.REMOVE.OBJ_blobs",
    "$JS.API.META.LEADER.STEPDOWN",
    "$JS.API.SERVER.REMOVE",
    "$JS.API.ACCOUNT.PURGE.STORE",
    "$JS.API.DIRECT.GET.OBJ_other",
    "$JS.API.DIRECT.GET.KV_other.$KV.other.x",
    "$JS.API.CONSUMER.CREATE.OBJ_blobs",
    "$JS.API.CONSUMER.CREATE.KV_names.c.$KV.names.>",
    "$JS.API.CONSUMER.LIST.OBJ_blobs",
    "$SYS.REQ.SERVER.PING",
    "blob.delete",
    "anything",
)
WORKER_MUST_NOT_SUBSCRIBE: Final = (
    (">", ""),
    ("blob.put", ""),
    ("blob.put", "other"),
    ("blob.>", ""),
    ("snapshot.create", ""),
    ("snapshot.>", ""),
    ("snapshot.on.node-1.create", ""),
    ("snapshot.progress.*", ""),
    ("_INBOX.>", ""),
    ("_INBOX.*.*", ""),
    ("_INBOX.admin.>", ""),
    ("$O.>", ""),
    ("$KV.>", ""),
    ("$HF.>", ""),
    ("$HF.states.>", ""),
    ("$JS.>", ""),
    ("$SYS.>", ""),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShippedServer]:
    """One node as shipped, with the buckets that its administrator made."""
    with shipped_server(tmp_path_factory.mktemp("shipped")) as server:
        asyncio.run(init_store(server.config("admin")))
        yield server


class Refused:
    """A connection, and what the server refused on it."""

    def __init__(self, server: ShippedServer, connection: Connection, told: list[str]) -> None:
        self.server = server
        self.connection = connection
        self.told = told

    async def wait(self, kind: str, subject: str) -> None:
        """Until the server has refused exactly this."""
        await until(lambda: bool(self.told))
        (text,) = self.told
        assert f'permissions violation for {kind} to "{subject}"'.lower() in text.lower()
        assert f'"{subject}"' in self.server.violations()[-1]


@pytest_asyncio.fixture
async def as_user(server: ShippedServer, request: pytest.FixtureRequest) -> AsyncIterator[Refused]:
    """A connection of the user that the test names."""
    told = Told()
    connection = await connect(options(server.url, request.param), observer=told)
    yield Refused(server, connection, told.problems)
    await connection.close()


client = pytest.mark.parametrize("as_user", ["client"], indirect=True)
worker = pytest.mark.parametrize("as_user", ["worker"], indirect=True)


@pytest.mark.fault("A02")
@client
@pytest.mark.parametrize("subject", CLIENT_MUST_NOT_PUBLISH)
async def test_a_client_may_not_publish(as_user: Refused, subject: str) -> None:
    as_user.connection.send(subject, b"x")

    await as_user.wait("publish", subject)


@pytest.mark.fault("A02")
@pytest.mark.fault("A03")
@client
@pytest.mark.parametrize(("subject", "queue"), CLIENT_MUST_NOT_SUBSCRIBE)
async def test_a_client_may_not_subscribe(as_user: Refused, subject: str, queue: str) -> None:
    as_user.connection.route(subject, lambda _message: None, queue=queue)

    await as_user.wait("subscription", subject)


@pytest.mark.fault("A05")
@worker
@pytest.mark.parametrize("subject", WORKER_MUST_NOT_PUBLISH)
async def test_a_worker_may_not_publish(as_user: Refused, subject: str) -> None:
    as_user.connection.send(subject, b"x")

    await as_user.wait("publish", subject)


@pytest.mark.fault("A05")
@worker
@pytest.mark.parametrize(("subject", "queue"), WORKER_MUST_NOT_SUBSCRIBE)
async def test_a_worker_may_not_subscribe(as_user: Refused, subject: str, queue: str) -> None:
    as_user.connection.route(subject, lambda _message: None, queue=queue)

    await as_user.wait("subscription", subject)


@pytest.mark.fault("A03")
async def test_what_workers_and_administrators_are_answered_reaches_no_client(
    server: ShippedServer,
) -> None:
    async with connected(options(server.url, "client")) as listener:
        heard = await receive(listener, "_INBOX.>")

        async with connected(options(server.url, "admin")) as admin:
            for user in ("worker", "admin", "somebody"):
                admin.send(f"_INBOX.{user}.x.1", user.encode())
            await admin.wait_flushed(30)

        # The last of the three, and none before it: they come in order.
        assert bytes((await next_of(heard)).data) == b"somebody"


@pytest.mark.fault("A03")
async def test_a_client_with_an_inbox_prefix_of_its_own_hears_no_other(tmp_path: Path) -> None:
    for path in CONFIGURATIONS.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    users = tmp_path / "users.conf"
    text = users.read_text()
    assert text.count('"_INBOX.>"') == 2  # a worker's to publish, a client's to subscribe
    shared = 'allow: ["snapshot.progress.*", "_INBOX.>"]'
    own = 'allow: ["snapshot.progress.*", "_INBOX.photos.>"]'
    users.write_text(text.replace(shared, own))
    (tmp_path / "store").mkdir()
    told = Told()

    with shipped_server(tmp_path / "store", configurations=tmp_path) as server:
        connection = await connect(options(server.url, "client"), observer=told)
        others = ("_INBOX.>", "_INBOX.*.>", "_INBOX.*", "_INBOX.videos.>", "_INBOX.videos.x.1")
        for subject in others:
            connection.route(subject, lambda _message: None)
        await until(lambda: len(told.problems) == len(others))
        own_answers = await receive(connection, "_INBOX.photos.x.*")
        async with connected(options(server.url, "worker")) as worker_connection:
            worker_connection.send("_INBOX.photos.x.1", b"answer")
        assert bytes((await next_of(own_answers)).data) == b"answer"
        assert len(told.problems) == len(others)
        await connection.close()


async def test_nobody_connects_without_a_password(server: ShippedServer) -> None:
    nobody = NatsOptions(servers=(server.url,))
    wrong = NatsOptions(servers=(server.url,), user="worker", password=PASSWORDS["CLIENT_PASSWORD"])
    for wanted in (nobody, wrong):
        with pytest.raises(ForbiddenError):
            await connect(wanted)
