"""The flags that set what a file or the environment could set too.

Names, types and help of the flags follow ``Config`` and ``NatsOptions``; a test compares them. A
flag that is not given is None, and the next source counts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_type_hints

from cyclopts import Group, Parameter
from msgspec import Meta

from holdfast.runtime.config import Config, LoadedConfig, load_config

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONNECTION: Final = Group("Connection", sort_key=10)
_SETTINGS: Final = Group("Settings", sort_key=11)


def _nats(description: str, *names: str) -> Parameter:
    return Parameter(name=names or None, help=description, group=_CONNECTION)


def setting(hints: Mapping[str, Any], group: Group, name: str) -> Parameter:
    """The flag of the setting ``name``, with the help text that its type ``hints`` have."""
    notes = getattr(hints[name], "__metadata__", ())
    texts = [note.description for note in notes if isinstance(note, Meta) and note.description]
    return Parameter(help=texts[0] if texts else "", group=group, negative="")


_setting: Final = partial(setting, get_type_hints(Config, include_extras=True), _SETTINGS)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ConnectionFlags:
    """Options to reach NATS, spelled and meant as for ``nats``."""

    config: Annotated[
        Path | None, _nats("TOML file with settings; by default $HOLDFAST_CONFIG.")
    ] = None
    server: Annotated[str | None, _nats("NATS servers, separated by commas.", "--server", "-s")] = (
        None
    )
    context: Annotated[str | None, _nats("NATS context.")] = None
    connection_name: Annotated[str | None, _nats("Name of the connection, for monitoring.")] = None
    user: Annotated[str | None, _nats("User name, or a token.")] = None
    password: Annotated[str | None, _nats("Password.")] = None
    token: Annotated[str | None, _nats("Token.")] = None
    creds: Annotated[str | None, _nats("File with credentials.")] = None
    nkey: Annotated[str | None, _nats("File with the seed of an nkey.")] = None
    tls_ca: Annotated[
        str | None, _nats("File with certificate authorities.", "--tls-ca", "--tlsca")
    ] = None
    tls_cert: Annotated[
        str | None, _nats("File with a client certificate.", "--tls-cert", "--tlscert")
    ] = None
    tls_key: Annotated[
        str | None, _nats("File with the private key of the certificate.", "--tls-key", "--tlskey")
    ] = None
    tls_first: Annotated[
        bool | None,
        Parameter(
            name=("--tls-first", "--tlsfirst"),
            help="Start TLS before the server's greeting.",
            group=_CONNECTION,
            negative="",
        ),
    ] = None
    inbox_prefix: Annotated[str | None, _nats("Prefix of reply subjects.")] = None
    jetstream_domain: Annotated[
        str | None,
        _nats("JetStream domain of the store.", "--jetstream-domain", "--js-domain"),
    ] = None
    prefix: Annotated[str | None, _setting("prefix")] = None

    def load(self) -> LoadedConfig:
        """The configuration, with these flags on top. Raises InvalidError."""
        given = {
            _key_of(flag.name): getattr(self, flag.name)
            for flag in fields(self)
            if flag.name not in _NO_SETTINGS
        }
        return load_config(flags=given, config_file=self.config)


_NO_SETTINGS: Final = frozenset({"config", "timeout"})
_KEYS: Final = {"server": "nats.servers", "connection_name": "nats.name"}


def _key_of(flag: str) -> str:
    """The key of a flag's setting: of the connection, if ``Config`` has none of that name."""
    if flag in Config.__struct_fields__:
        return flag
    return _KEYS.get(flag, f"nats.{flag}")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClientFlags(ConnectionFlags):
    """Also how patient to be: for the commands that ask workers."""

    timeout: Annotated[float, _nats("Seconds to wait for an answer.")] = 30


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StoreFlags(ConnectionFlags):
    """Also where the blobs are: for the commands that reach the store itself."""

    store: Annotated[str | None, _setting("store")] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WorkerFlags(StoreFlags):
    """Every setting there is."""

    node: Annotated[str | None, _setting("node")] = None
    apps: Annotated[str | None, _setting("apps")] = None
    max_archives: Annotated[int | None, _setting("max_archives")] = None
    snapshot_lease_seconds: Annotated[float | None, _setting("snapshot_lease_seconds")] = None
    prune_seconds: Annotated[float | None, _setting("prune_seconds")] = None
    max_concurrent_requests: Annotated[int | None, _setting("max_concurrent_requests")] = None
    max_uploads: Annotated[int | None, _setting("max_uploads")] = None
    upload_memory_bytes: Annotated[int | None, _setting("upload_memory_bytes")] = None
    upload_lease_seconds: Annotated[float | None, _setting("upload_lease_seconds")] = None
    collect_every_seconds: Annotated[float | None, _setting("collect_every_seconds")] = None
    collect_bytes_per_second: Annotated[int | None, _setting("collect_bytes_per_second")] = None
    scrub_days: Annotated[float | None, _setting("scrub_days")] = None
    scrub_bytes_per_second: Annotated[int | None, _setting("scrub_bytes_per_second")] = None
    request_timeout_seconds: Annotated[float | None, _setting("request_timeout_seconds")] = None
    drain_seconds: Annotated[float | None, _setting("drain_seconds")] = None
    inbox_prefixes: Annotated[tuple[str, ...] | None, _setting("inbox_prefixes")] = None
    require_sync: Annotated[bool | None, _setting("require_sync")] = None
    monitor_url: Annotated[str | None, _setting("monitor_url")] = None
    log_format: Annotated[Literal["auto", "console", "json"] | None, _setting("log_format")] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, _setting("log_level")
    ] = None
    metrics_port: Annotated[int | None, _setting("metrics_port")] = None
    metrics_host: Annotated[str | None, _setting("metrics_host")] = None
    link_keys: Annotated[str | None, _setting("link_keys")] = None
    public_url: Annotated[str | None, _setting("public_url")] = None
