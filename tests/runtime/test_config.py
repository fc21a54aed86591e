"""Where settings come from, and which of them counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.errors import InvalidError
from holdfast.runtime.config import (
    SETTINGS,
    Config,
    LoadedConfig,
    flag_of,
    load_config,
    variable_of,
)
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Callable

NOWHERE = {"XDG_CONFIG_HOME": "/nonexistent"}


def load(
    file: Path | None = None, environ: dict[str, str] | None = None, **flags: Any
) -> LoadedConfig:
    return load_config(
        flags=flags,
        config_file=file,
        environ=NOWHERE | (environ or {}),
        hostname="node-7.example",
    )


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "holdfast.toml"
        path.write_text(text)
        return path

    return write


def test_the_defaults_are_those_of_the_struct_but_for_the_host_name() -> None:
    loaded = load()

    assert loaded.config == Config(node="node-7.example")
    assert loaded.sources["node"] == "host name"
    assert {at for key, at in loaded.sources.items() if key != "node"} == {"default"}


def test_a_flag_beats_the_environment_beats_the_file(toml: Callable[[str], Path]) -> None:
    file = toml("max_uploads = 3\nmax_concurrent_requests = 3\ndrain_seconds = 3\n")
    environ = {"HOLDFAST_MAX_UPLOADS": "5", "HOLDFAST_MAX_CONCURRENT_REQUESTS": "5"}

    loaded = load(file, environ, max_uploads=7, log_level=None)

    config = loaded.config
    assert (config.max_uploads, config.max_concurrent_requests, config.drain_seconds) == (7, 5, 3)
    assert loaded.sources["max_uploads"] == "--max-uploads"
    assert loaded.sources["max_concurrent_requests"] == "$HOLDFAST_MAX_CONCURRENT_REQUESTS"
    assert loaded.sources["drain_seconds"] == str(file)


def test_the_environment_names_the_file(toml: Callable[[str], Path]) -> None:
    file = toml('store = "disk:///var/lib/holdfast"\n')

    loaded = load(environ={"HOLDFAST_CONFIG": str(file)})

    assert loaded.config.store == "disk:///var/lib/holdfast"


def test_the_file_may_say_how_to_reach_nats(toml: Callable[[str], Path]) -> None:
    file = toml('[nats]\nservers = ["nats://a:1", "nats://b:2"]\ncreds = "c"\n')

    loaded = load(file)

    assert loaded.config.nats == NatsOptions(servers=("nats://a:1", "nats://b:2"), creds="c")
    assert loaded.sources["nats.creds"] == str(file)


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    loaded = load(environ={"HOLDFAST_INBOX_PREFIXES": "_INBOX., _MINE.", "NATS_URL": "a, b"})

    assert loaded.config.inbox_prefixes == ("_INBOX.", "_MINE.")
    assert loaded.config.nats.servers == ("nats://a", "nats://b")


@pytest.mark.parametrize(
    "text", ["'http://a:1'", "['http://a:1']", "'http://a:1, http://b:1'"], ids=str
)
def test_the_file_may_name_one_monitoring_address_or_a_list(
    text: str, toml: Callable[[str], Path]
) -> None:
    urls = load(toml(f"monitor_url = {text}\n")).config.monitor_url

    assert urls == ("http://a:1", "http://b:1")[: len(urls)] != ()


def test_monitoring_addresses_are_separated_by_commas() -> None:
    both = "http://a:8222,http://b:8222"

    by_variable = load(environ={"HOLDFAST_MONITOR_URL": both}).config
    by_flag = load(monitor_url=both).config

    assert by_variable.monitor_url == by_flag.monitor_url == tuple(both.split(","))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("max_upload = 3", "unknown key 'max_upload'"),
        ("[nats]\nserver = 'nats://a'", "unknown key 'nats.server'"),
        ("[worker]\nnode = 'a'", "unknown key 'worker'"),
        ("nats = 3", r"\[nats\]"),
        ("[nats]\ncontext = 3", "nats.context"),
        ("max_uploads = '3'", "max_uploads .*Expected `int`"),
        ("max_uploads = 0", "max_uploads .*>= 1"),
        ("store = 's3://bucket'", "store .*regex"),
        ("node = ''", "node"),
        ("prefix = 'a.b'", "prefix"),
        ("inbox_prefixes = ['_INBOX']", "inbox_prefixes"),
        ("inbox_prefixes = ['$JS.API.>.']", "inbox_prefixes"),
        ("drain_seconds = nan", "drain_seconds"),
        ("log_format = 'xml'", "log_format"),
        ("metrics_port = 70000", "metrics_port"),
        ("store = ", "holdfast.toml"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_key(
    text: str, named: str, toml: Callable[[str], Path]
) -> None:
    file = toml(text)

    with pytest.raises(InvalidError, match=named) as caught:
        load(file)

    assert str(file) in caught.value.detail


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(InvalidError, match=r"/nonexistent/holdfast\.toml"):
        load(Path("/nonexistent/holdfast.toml"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOLDFAST_MAX_UPLOADS", "many"),
        ("HOLDFAST_MAX_UPLOADS", "-1"),
        ("HOLDFAST_REQUIRE_SYNC", "perhaps"),
        ("HOLDFAST_UPLOAD_LEASE_SECONDS", "inf"),
        ("HOLDFAST_MONITOR_URL", "nats://a"),
        ("HOLDFAST_MONITOR_URL", "http://a,b"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(InvalidError, match=rf"\${variable}"):
        load(environ={variable: value})


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False)])
def test_booleans_in_the_environment_are_words(text: str, value: bool) -> None:
    assert load(environ={"HOLDFAST_REQUIRE_SYNC": text}).config.require_sync is value


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(environ={"HOLDFAST_STORE": "", "NATS_URL": ""}).sources["store"] == "default"


def test_a_context_replaces_what_the_file_says_of_nats(
    toml: Callable[[str], Path], tmp_path: Path
) -> None:
    file = toml('[nats]\nservers = ["nats://file:1"]\nuser = "u"\npassword = "p"\n')
    context = tmp_path / "dev.json"
    context.write_text(json.dumps({"url": "nats://context:1"}))

    loaded = load(file, {"NATS_CONTEXT": str(context)})

    assert loaded.config.nats == NatsOptions(servers=("nats://context:1",))
    assert loaded.sources["nats.servers"] == f"NATS context {context}"


def test_a_flag_with_credentials_replaces_all_lower_ones() -> None:
    loaded = load(None, {"NATS_USER": "u", "NATS_PASSWORD": "p"}, **{"nats.token": "t"})

    assert loaded.config.nats == NatsOptions(token="t")


def test_every_value_is_listed_once_with_its_source_and_no_secret() -> None:
    loaded = load(environ={"NATS_PASSWORD": "hunter2", "NATS_USER": "ada"})

    values = list(loaded.values())

    keys = [key for key, _, _ in values]
    fields = NatsOptions.__struct_fields__
    assert sorted(keys) == sorted([*(f"nats.{name}" for name in fields), *SETTINGS])
    assert ("nats.password", "***", "$NATS_PASSWORD") in values
    assert "hunter2" not in str(values)
    assert "hunter2" not in repr(loaded)


def test_a_host_name_that_cannot_be_a_node_name_is_reported() -> None:
    with pytest.raises(InvalidError, match=r"node .*host name"):
        load_config(environ=NOWHERE, hostname="bad host")


@pytest.mark.parametrize(
    ("key", "variable", "flag"),
    [
        ("nats.servers", "NATS_URL", "server"),
        ("nats.tls_ca", "NATS_CA", "tls-ca"),
        ("nats.tls_first", None, "tls-first"),
        ("max_uploads", "HOLDFAST_MAX_UPLOADS", "max-uploads"),
    ],
)
def test_keys_variables_and_flags_correspond(key: str, variable: str | None, flag: str) -> None:
    assert (variable_of(key), flag_of(key)) == (variable, flag)
