"""NatsOptions and what they become for nats-py."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import nkeys
import pytest

from holdfast.errors import InvalidError
from holdfast.transport.contexts import to_options
from holdfast.transport.options import NatsOptions, connect_arguments, masked

if TYPE_CHECKING:
    from pathlib import Path


def new_seed() -> str:
    pair = nkeys.from_seed(nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER))
    return bytes(pair.seed).decode()


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
        ({"user": "a", "password": "b", "token": "t"}, {"user": "a", "password": "b"}),
        ({"user": "a"}, {"token": "a"}),
        ({"token": "t"}, {"token": "t"}),
    ],
    ids=["user first", "a lone user is a token", "token"],
)
def test_one_kind_of_credentials_is_used(given: dict[str, str], expected: dict[str, str]) -> None:
    arguments = connect_arguments(to_options(given))

    found = {key: arguments[key] for key in ("user", "password", "token") if key in arguments}
    assert found == expected


def test_an_nkey_is_a_seed_or_the_path_of_one(tmp_path: Path) -> None:
    seed = new_seed()
    file = tmp_path / "user.nk"
    file.write_text(seed)

    by_value = connect_arguments(NatsOptions(nkey=seed))
    by_path = connect_arguments(NatsOptions(nkey=str(file)))

    assert by_value["nkeys_seed_str"] == seed
    assert by_path["nkeys_seed"] == str(file)


def test_a_path_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "me.creds").write_text("…")

    arguments = connect_arguments(NatsOptions(creds="~/me.creds"))

    assert arguments["user_credentials"] == str(tmp_path / "me.creds")


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
        {"tls_first": "yes"},
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=next(iter(given))):
        to_options(given)
