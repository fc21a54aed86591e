"""NatsOptions and what they become for nats-py."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import nkeys
import pytest

from holdfast.errors import InvalidError
from holdfast.transport.contexts import to_options
from holdfast.transport.options import NatsOptions, connect_arguments, login, masked

if TYPE_CHECKING:
    from pathlib import Path


def new_seed() -> str:
    pair = nkeys.from_seed(nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER))
    return bytes(pair.seed).decode()


def credentials(jwt: str) -> str:
    """A file as ``nsc`` makes it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\nKeep it secret.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{new_seed()}\n------END USER NKEY SEED------\n"
    )


def test_a_connection_is_never_given_up_and_notices_a_dead_peer_soon() -> None:
    arguments = connect_arguments(NatsOptions())

    assert arguments["servers"] == ["nats://127.0.0.1:4222"]
    assert arguments["max_reconnect_attempts"] == -1
    assert arguments["ping_interval"] == 5
    assert "tls" not in arguments


def test_secrets_are_not_in_the_repr() -> None:
    seed = new_seed()
    options = NatsOptions(
        servers=("nats://ada:hunter2@a:4222",), password="hunter3", token="hunter4", nkey=seed
    )

    shown = f"{options!r} {options}"

    assert "hunter" not in shown
    assert seed not in shown
    assert "nats://***@a:4222" in shown


def test_the_path_of_a_seed_is_shown_and_the_seed_is_not() -> None:
    assert masked("nkey", "/etc/holdfast/user.nk") == "/etc/holdfast/user.nk"
    assert masked("nkey", new_seed()) == "***"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"user": "a", "password": "b", "token": "t"}, {"user": "a", "pass": "b"}),
        ({"user": "a"}, {"auth_token": "a"}),
        ({"token": "t"}, {"auth_token": "t"}),
    ],
    ids=["user first", "a lone user is a token", "token"],
)
def test_one_kind_of_credentials_is_used(given: dict[str, str], expected: dict[str, str]) -> None:
    assert login(to_options(given), "127.0.0.1", 4222, nonce=None) == expected


def test_an_nkey_is_a_seed_or_the_path_of_one(tmp_path: Path) -> None:
    seed = new_seed()
    file = tmp_path / "user.nk"
    file.write_text(seed)

    by_value = login(NatsOptions(nkey=seed), "a", 1, nonce="n")
    by_path = login(NatsOptions(nkey=str(file)), "a", 1, nonce="n")

    assert by_value == by_path
    assert by_value["nkey"] == nkeys.from_seed(seed.encode()).public_key.decode()
    assert by_value["sig"]


def test_a_path_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "me.creds").write_text(credentials("a.jwt"))

    assert login(NatsOptions(creds="~/me.creds"), "a", 1, nonce="n")["jwt"] == "a.jwt"


def test_credentials_are_those_that_are_on_disk_at_the_moment(tmp_path: Path) -> None:
    file = tmp_path / "me.creds"
    options = NatsOptions(creds=str(file))

    file.write_text(credentials("first"))
    before = login(options, "a", 1, nonce="n")
    file.write_text(credentials("second").replace("\n", "\r\n"))
    after = login(options, "a", 1, nonce="n")

    assert (before["jwt"], after["jwt"]) == ("first", "second")


@pytest.mark.parametrize("field", ["creds", "nkey"])
@pytest.mark.parametrize(
    "content", [b"", b"half a fi", b"\xff\xfe", credentials("a").encode()[:99]]
)
def test_what_holds_no_credentials_is_refused_and_named(
    field: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(content)

    with pytest.raises(InvalidError, match=f"{field}: "):
        connect_arguments(to_options({field: str(tmp_path / "file")}))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://a%40b:p%2F%3A%25w@h:4222", {"user": "a@b", "pass": "p/:%w"}),
        ("nats://s3cr%3At@h", {"auth_token": "s3cr:t"}),
        ("nats://a:@h", {"user": "a", "pass": ""}),
        ("nats://h", {}),
    ],
)
def test_a_user_in_a_servers_url_is_decoded_and_the_address_bare(
    url: str, expected: dict[str, str]
) -> None:
    options = NatsOptions(servers=(url,))

    assert login(options, "h", 4222, nonce=None) == expected
    assert "@" not in connect_arguments(options)["servers"][0]


def test_each_server_has_its_own_user_and_one_that_others_told_of_has_the_first() -> None:
    options = NatsOptions(servers=("nats://bare", "nats://a:x@one:1", "nats://b:y@two:2"))

    found = {
        name: login(options, *name, nonce=None).get("user")
        for name in [("one", 1), ("two", 2), ("bare", 4222), ("elsewhere", 4222)]
    }

    assert list(found.values()) == ["a", "b", None, "a"]


@pytest.mark.parametrize(
    "server", ["nats://h:99999", "nats://h:0", "nats://h:x", "nats://u:hunter2#@h", "nats://[::1"]
)
def test_what_is_no_address_is_refused_and_secrets_are_not_repeated(server: str) -> None:
    with pytest.raises(InvalidError, match="servers: ") as caught:
        connect_arguments(NatsOptions(servers=(server,)))

    assert "hunter2" not in caught.value.detail


@pytest.mark.parametrize("field", ["name", "user", "password", "token"])
def test_what_is_not_utf8_is_refused(field: str) -> None:
    with pytest.raises(InvalidError, match=f"{field}: it is not UTF-8"):
        connect_arguments(NatsOptions(**{field: "\udcff"}))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["creds", "nkey", "tls_ca"])
def test_a_missing_file_is_named(field: str, tmp_path: Path) -> None:
    options = to_options({field: str(tmp_path / "gone")})

    with pytest.raises(InvalidError, match=f"{field}: cannot read .*gone: No such file"):
        connect_arguments(options)


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(InvalidError, match="together"):
        connect_arguments(NatsOptions(tls_cert="cert.pem"))


def test_an_authority_that_is_not_a_certificate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate")

    with pytest.raises(InvalidError, match="tls_ca"):
        connect_arguments(NatsOptions(tls_ca=str(file)))


def test_a_certificate_that_is_not_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("not a certificate")

    with pytest.raises(InvalidError, match="do not belong together"):
        connect_arguments(NatsOptions(tls_cert=str(file), tls_key=str(file)))


def test_tls_first_checks_the_servers_certificate() -> None:
    arguments = connect_arguments(NatsOptions(tls_first=True))

    assert arguments["tls_handshake_first"] is True
    assert arguments["tls"].verify_mode is ssl.CERT_REQUIRED
    assert arguments["tls"].check_hostname


@pytest.mark.parametrize(
    "given",
    [
        {"servers": ()},
        {"servers": ("127.0.0.1:4222",)},
        {"servers": ("http://127.0.0.1",)},
        {"servers": ("nats://a b",)},
        {"inbox_prefix": "_INBOX."},
        {"inbox_prefix": "a.*"},
        {"inbox_prefix": "a b"},
        {"inbox_prefix": ""},
        {"jetstream_domain": "a.b"},
        {"jetstream_domain": "*"},
        {"tls_first": "yes"},
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=next(iter(given))):
        to_options(given)
