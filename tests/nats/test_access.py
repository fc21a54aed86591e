"""Connecting: passwords, tokens, nkeys, permissions, TLS."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import nkeys
import pytest
from tests.nats.tools import Told, connected, next_of, receive, until

from holdfast.errors import ForbiddenError, UnavailableError
from holdfast.transport import connection as connection_module
from holdfast.transport.connection import connect
from holdfast.transport.contexts import options_from_environment
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats


async def assert_usable(options: NatsOptions) -> None:
    """A large message makes it there and back."""
    async with connected(options) as connection:
        messages = await receive(connection, "a")
        connection.send("a", bytes(500_000), headers={"A": "b"})
        message = await next_of(messages)
        assert (bytes(message.data), message.headers) == (bytes(500_000), {"A": "b"})


def authorize(server: EmbeddedServer, authorization: str) -> None:
    """Have the server let in only those that ``authorization`` says."""
    configuration = server.log_file.with_name("nats-server.conf")
    before = configuration.read_text().partition("authorization")[0]
    configuration.write_text(f"{before}authorization {{ {authorization} }}\n")
    os.kill(server.pid, signal.SIGHUP)


class TestChangedCredentials:
    """Whoever is connected stays a client, however often the credentials are changed."""

    async def test_a_changed_password_is_forbidden_at_once_and_ends_nothing(
        self, start_server: StartServer
    ) -> None:
        server = start_server(extra_configuration='authorization { user: "ann", password: "one" }')

        async with connected(
            NatsOptions(servers=(server.url,), user="ann", password="one")
        ) as connection:
            messages = await receive(connection, "a")
            authorize(server, 'user: "ann", password: "two"')
            await until(lambda: not connection.is_connected)
            async with asyncio.timeout(20):
                with pytest.raises(ForbiddenError, match="Authorization Violation"):
                    await connection.wait_connected(60)

            authorize(server, 'user: "ann", password: "one"')
            await until(lambda: connection.is_connected, 20)
            connection.send("a", b"x")
            assert bytes((await next_of(messages)).data) == b"x"

    async def test_a_seed_that_is_renewed_on_disk_is_read_again(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        first, second = (nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER) for _ in "12")
        users = [nkeys.from_seed(bytearray(seed)).public_key.decode() for seed in (first, second)]
        file = tmp_path / "user.nk"
        file.write_bytes(first)
        server = start_server(
            extra_configuration=f"authorization {{ users: [ {{ nkey: {users[0]} }} ] }}"
        )

        async with connected(NatsOptions(servers=(server.url,), nkey=str(file))) as connection:
            file.write_bytes(second[:20])  # half of it is there
            authorize(server, f"users: [ {{ nkey: {users[1]} }} ]")
            await until(lambda: not connection.is_connected)
            file.write_bytes(second)
            await until(lambda: connection.is_connected, 20)

    async def test_a_context_that_is_changed_is_read_again(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        server = start_server(extra_configuration='authorization { user: "ann", password: "one" }')
        context = tmp_path / "context.json"
        environ = {"NATS_CONTEXT": str(context)}

        def save(password: str) -> None:
            content = {"url": server.url, "user": "ann", "password": password}
            context.write_text(json.dumps(content))

        save("one")
        connection = await connect(
            options_from_environment(environ), renew=lambda: options_from_environment(environ)
        )
        authorize(server, 'user: "ann", password: "two"')
        await until(lambda: not connection.is_connected)
        context.write_text("{ half a")
        save("two")
        await until(lambda: connection.is_connected, 20)
        await connection.close()


class TestCredentials:
    async def test_a_user_in_the_servers_url_is_percent_decoded(
        self, start_server: StartServer
    ) -> None:
        server = start_server(
            extra_configuration='authorization { user: "a@b", password: "p/:%w" }'
        )

        await assert_usable(
            NatsOptions(servers=(server.url.replace("//", "//a%40b:p%2F%3A%25w@"),))
        )

    async def test_a_wrong_password_is_forbidden_at_once(
        self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection_module, "CONNECT_SECONDS", 1000.0)
        server = start_server(
            extra_configuration='authorization { user: "ann", password: "right" }'
        )
        before = asyncio.all_tasks()

        for options in (
            NatsOptions(servers=(server.url,), user="ann", password="wrong"),
            NatsOptions(servers=(server.url,)),
        ):
            async with asyncio.timeout(60):
                with pytest.raises(ForbiddenError, match="refused the credentials"):
                    await connect(options, timeout_seconds=1000)
        await until(lambda: asyncio.all_tasks() == before)

        right = NatsOptions(servers=(server.url,), user="ann", password="right")
        await assert_usable(right)

    async def test_a_token_is_taken_and_a_wrong_one_forbidden(
        self, start_server: StartServer
    ) -> None:
        server = start_server(extra_configuration='authorization { token: "s3cret" }')

        with pytest.raises(ForbiddenError):
            await connect(NatsOptions(servers=(server.url,), token="other"))

        await assert_usable(NatsOptions(servers=(server.url,), token="s3cret"))

    async def test_a_denied_publish_is_counted_and_told_and_the_connection_stays(
        self, start_server: StartServer
    ) -> None:
        server = start_server(
            extra_configuration="""authorization { users: [ {
              user: "ann", password: "right",
              permissions: { publish: { deny: "secret.>" }, subscribe: { deny: "$SYS.>" } }
            } ] }"""
        )
        told = Told()
        connection = await connect(
            NatsOptions(servers=(server.url,), user="ann", password="right"), observer=told
        )

        connection.send("secret.a", b"x")
        connection.route("$SYS.>", lambda _message: None)
        await until(lambda: connection.counters.violations == 2)

        assert ["permissions violation" in text for text in told.problems] == [True, True]
        messages = await receive(connection, "open.a")
        connection.send("open.a", b"x")
        assert bytes((await next_of(messages)).data) == b"x"
        await connection.close()

    @pytest.mark.parametrize("form", ["seed", "file"])
    async def test_an_nkey_is_taken_and_another_forbidden(
        self, start_server: StartServer, tmp_path: Path, form: str
    ) -> None:
        mine, other = (nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER) for _ in "12")
        public = nkeys.from_seed(bytearray(mine)).public_key.decode()
        server = start_server(
            extra_configuration=f"authorization {{ users: [ {{ nkey: {public} }} ] }}"
        )

        def options(seed: bytes) -> NatsOptions:
            if form == "seed":
                return NatsOptions(servers=(server.url,), nkey=seed.decode())
            path = tmp_path / "key.nk"
            path.write_bytes(seed)
            return NatsOptions(servers=(server.url,), nkey=str(path))

        with pytest.raises(ForbiddenError):
            await connect(options(other))
        await assert_usable(options(mine))


def openssl(*arguments: str, directory: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def make_authority(directory: Path, name: str) -> None:
    """A certificate authority: ``<name>.pem`` and ``<name>.key``."""
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN={name}"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        directory=directory,
    )


def make_certificate(directory: Path, name: str, address: str, days: int = 2) -> None:
    """``<name>.pem`` and ``<name>.key``, signed by the authority ``ca``, for an IP address."""
    (directory / "san").write_text(f"subjectAltName=IP:{address}\nauthorityKeyIdentifier=keyid\n")
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"),
        directory=directory,
    )
    openssl(
        *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-out", f"{name}.pem", "-days", str(days), "-extfile", "san"),
        directory=directory,
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two authorities, ``ca`` and ``other``, and certificates by ``ca``."""
    directory = tmp_path_factory.mktemp("certificates")
    make_authority(directory, "ca")
    make_authority(directory, "other")
    make_certificate(directory, "server", "127.0.0.1")
    make_certificate(directory, "elsewhere", "127.0.0.9")
    make_certificate(directory, "client", "127.0.0.1")
    return directory


def tls_configuration(certificates: Path, name: str = "server", extra: str = "") -> str:
    return f"""tls {{
      cert_file: "{certificates}/{name}.pem", key_file: "{certificates}/{name}.key",
      ca_file: "{certificates}/ca.pem" {extra}
    }}"""


async def assert_refused(options: NatsOptions, why: str = "") -> None:
    with pytest.raises(UnavailableError, match=f"cannot connect to NATS: .*{why}"):
        await connect(options, timeout_seconds=3)


@pytest.mark.fault("A07")
class TestTls:
    async def test_only_who_knows_the_authority_trusts_the_server(
        self, start_server: StartServer, certificates: Path
    ) -> None:
        server = start_server(extra_configuration=tls_configuration(certificates))

        await assert_usable(NatsOptions(servers=(server.url,), tls_ca=f"{certificates}/ca.pem"))

        await assert_refused(NatsOptions(servers=(server.url,)), "verify failed")
        await assert_refused(
            NatsOptions(servers=(server.url,), tls_ca=f"{certificates}/other.pem"), "verify failed"
        )

    async def test_a_certificate_for_another_address_is_refused(
        self, start_server: StartServer, certificates: Path
    ) -> None:
        server = start_server(extra_configuration=tls_configuration(certificates, "elsewhere"))

        options = NatsOptions(servers=(server.url,), tls_ca=f"{certificates}/ca.pem")
        await assert_refused(options, "IP address mismatch")

    async def test_a_server_that_asks_for_a_certificate_gets_one(
        self, start_server: StartServer, certificates: Path
    ) -> None:
        server = start_server(
            extra_configuration=tls_configuration(certificates, extra=", verify: true")
        )
        without = NatsOptions(servers=(server.url,), tls_ca=f"{certificates}/ca.pem")

        await assert_refused(without)

        await assert_usable(
            NatsOptions(
                servers=(server.url,),
                tls_ca=f"{certificates}/ca.pem",
                tls_cert=f"{certificates}/client.pem",
                tls_key=f"{certificates}/client.key",
            )
        )

    async def test_tls_may_come_before_the_greeting(
        self, start_server: StartServer, certificates: Path
    ) -> None:
        server = start_server(
            extra_configuration=tls_configuration(certificates, extra=", handshake_first: true")
        )
        authority = f"{certificates}/ca.pem"

        await assert_refused(NatsOptions(servers=(server.url,), tls_ca=authority))

        await assert_usable(NatsOptions(servers=(server.url,), tls_ca=authority, tls_first=True))
