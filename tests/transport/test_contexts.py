"""Contexts and variables of the ``nats`` command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.errors import InvalidError
from holdfast.transport.contexts import options_from_environment, read_context
from holdfast.transport.options import NatsOptions


class Contexts:
    """A configuration directory of ``nats``, and the environment that names it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {"XDG_CONFIG_HOME": str(root), "HOME": str(root / "home")}

    def save(self, name: str, **content: object) -> None:
        folder = self.root / "nats" / "context"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(content))

    def select(self, name: str) -> None:
        (self.root / "nats" / "context.txt").write_text(f"{name}\n")

    def options(self, **environ: str) -> NatsOptions:
        return options_from_environment(self.environ | environ)


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    return Contexts(tmp_path)


def test_without_anything_it_is_this_machine(contexts: Contexts) -> None:
    assert contexts.options() == NatsOptions()


def test_every_variable_of_the_nats_command_counts(contexts: Contexts) -> None:
    options = contexts.options(
        NATS_URL="nats://a:1, b:2",
        NATS_USER="u",
        NATS_PASSWORD="p",
        NATS_TOKEN="t",
        NATS_CREDS="c",
        NATS_NKEY="n",
        NATS_CA="ca",
        NATS_CERT="cert",
        NATS_KEY="key",
    )

    assert options == NatsOptions(
        servers=("nats://a:1", "nats://b:2"),
        user="u",
        password="p",
        token="t",
        creds="c",
        nkey="n",
        tls_ca="ca",
        tls_cert="cert",
        tls_key="key",
    )


def test_a_context_is_read_as_the_nats_command_writes_it(contexts: Contexts) -> None:
    contexts.save(
        "prod.eu",
        description="",
        url="tls://one:4222,tls://two:4222",
        user="",
        creds="~/prod.creds",
        tls_first=True,
        inbox_prefix="_MINE",
        jetstream_domain="hub",
        jetstream_api_prefix="$JS.API",
        jetstream_event_prefix="events",
        color_scheme="green",
    )

    options = contexts.options(NATS_CONTEXT="prod.eu")

    assert options == NatsOptions(
        servers=("tls://one:4222", "tls://two:4222"),
        creds=str(contexts.root / "home" / "prod.creds"),
        tls_first=True,
        inbox_prefix="_MINE",
        jetstream_domain="hub",
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$SECRETS/a.creds", "/run/secrets/a.creds"),
        ("${SECRETS}/a.creds", "/run/secrets/a.creds"),
        ("file:///run/a.creds", "/run/a.creds"),
        ("FILE://$SECRETS/a.creds", "/run/secrets/a.creds"),
        ("C:\\a.creds", "C:\\a.creds"),
    ],
)
def test_a_contexts_paths_are_expanded_as_the_nats_command_does(
    path: str, expected: str, contexts: Contexts
) -> None:
    contexts.save("dev", creds=path)

    assert contexts.options(NATS_CONTEXT="dev", SECRETS="/run/secrets").creds == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("creds", "op://vault/item"),
        ("creds", "nsc://operator/account/user"),
        ("nkey", "env://SEED"),
        ("ca", "data:;base64,AAAA"),
        ("password", "op://vault/item/password"),
        ("token", "env://TOKEN"),
        ("password", "FILE:///run/password"),
    ],
)
def test_a_secret_that_is_kept_elsewhere_is_refused_by_its_fields_name(
    key: str, value: str, contexts: Contexts
) -> None:
    contexts.save("dev", user="ada", **{key: value})

    with pytest.raises(InvalidError, match=f"'{key}' is kept where") as caught:
        contexts.options(NATS_CONTEXT="dev")
    assert value not in caught.value.detail


def test_a_password_that_only_looks_like_an_address_is_one(contexts: Contexts) -> None:
    contexts.save("dev", user="ada", password="pass://word")

    assert contexts.options(NATS_CONTEXT="dev").password == "pass://word"


def test_without_a_home_directory_there_is_no_selected_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)

    assert options_from_environment({}) == NatsOptions()
    with pytest.raises(InvalidError, match="set HOME"):
        read_context("dev", {})


def test_the_selected_context_counts_when_nothing_else_is_named(contexts: Contexts) -> None:
    contexts.save("dev", url="nats://dev:4222", token="t")
    contexts.select("dev")

    assert contexts.options() == NatsOptions(servers=("nats://dev:4222",), token="t")


def test_the_selected_contexts_secrets_do_not_go_to_a_named_server(contexts: Contexts) -> None:
    contexts.save("dev", url="nats://dev:4222", token="t")
    contexts.select("dev")

    options = contexts.options(NATS_URL="nats://elsewhere:4222")

    assert options == NatsOptions(servers=("nats://elsewhere:4222",))


def test_a_variable_beats_the_context(contexts: Contexts) -> None:
    contexts.save("dev", url="nats://dev:4222", ca="ca.pem")

    options = contexts.options(NATS_CONTEXT="dev", NATS_URL="nats://other:4222")

    assert options == NatsOptions(servers=("nats://other:4222",), tls_ca="ca.pem")


def test_credentials_of_two_origins_are_never_mixed(contexts: Contexts) -> None:
    contexts.save("dev", url="nats://dev:4222", user="ada", password="secret")

    options = contexts.options(NATS_CONTEXT="dev", NATS_CREDS="me.creds")

    assert options == NatsOptions(servers=("nats://dev:4222",), creds="me.creds")


def test_a_context_can_be_the_path_of_a_file(contexts: Contexts, tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    file.write_text('{"url": "nats://file:4222"}')

    assert contexts.options(NATS_CONTEXT=str(file)).servers == ("nats://file:4222",)


def test_an_unknown_context_is_an_error(contexts: Contexts) -> None:
    with pytest.raises(InvalidError, match="unknown NATS context 'gone'"):
        contexts.options(NATS_CONTEXT="gone")


@pytest.mark.parametrize("name", ["../dev", "a/b", "a\0b", "a\nb"], ids=ascii)
def test_a_context_name_is_not_a_path(name: str, contexts: Contexts) -> None:
    with pytest.raises(InvalidError, match="cannot be the name"):
        read_context(name, contexts.environ)


@pytest.mark.parametrize(
    "key",
    ["nsc", "socks_proxy", "user_jwt", "windows_cert_store", "jetstream_api_prefix", "brand_new"],
)
def test_a_context_that_needs_more_than_holdfast_can_is_refused(
    key: str, contexts: Contexts
) -> None:
    contexts.save("dev", url="nats://dev:4222", **{key: "something"})

    with pytest.raises(InvalidError, match=key):
        contexts.options(NATS_CONTEXT="dev")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"url": 4222}', '{"url": "http://x"}'])
def test_a_context_that_is_not_understood_is_an_error(text: str, contexts: Contexts) -> None:
    contexts.save("dev")
    (contexts.root / "nats" / "context" / "dev.json").write_text(text)

    with pytest.raises(InvalidError):
        contexts.options(NATS_CONTEXT="dev")


def test_a_wrong_value_is_not_repeated_for_it_may_be_a_secret(contexts: Contexts) -> None:
    with pytest.raises(InvalidError) as caught:
        contexts.options(NATS_URL="nats://ada:hunter2@host /")

    assert "hunter2" not in caught.value.detail
