"""One frozen struct with everything a process is told, and where each value came from.

Defaults, a TOML file, the environment and flags, each over the one before; ``NATS_*`` variables
and contexts mean what they mean to the ``nats`` command. An unknown key in the file is an error (a
typo should not pass), and a wrong value is reported with the place it was read from. Nothing here
is read again while the process runs.
"""

from __future__ import annotations

import os
import socket
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_type_hints

from msgspec import Meta, Struct, field

from holdfast.domain.limits import MIB, UPLOAD_MEMORY_BYTES
from holdfast.domain.setting_values import VARIABLE_PREFIX, checked_value, split_list
from holdfast.errors import InvalidError
from holdfast.transport.contexts import (
    CONTEXT_VARIABLE,
    ENVIRONMENT,
    environment_settings,
    read_context,
    selected_context,
    split_servers,
)
from holdfast.transport.options import CREDENTIAL_FIELDS, NatsOptions, masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONFIG_VARIABLE: Final = "HOLDFAST_CONFIG"
DEFAULT: Final = "default"

Prefix = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]*$(?!\n)", max_length=32)]
NodeName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$(?!\n)", max_length=128)]
StoreUrl = Annotated[str, Meta(pattern=r"^(nats|disk|memory)://[^\s]*$(?!\n)")]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s,]+$(?!\n)")]
ReplyPrefix = Annotated[str, Meta(pattern=r"^[^\s*>.]+(\.[^\s*>.]+)*\.$(?!\n)", max_length=128)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]


class Config(Struct, frozen=True, kw_only=True):
    """Settings of a worker and of every command. Sizes are bytes, times seconds."""

    nats: NatsOptions = field(default_factory=NatsOptions)
    prefix: Annotated[
        Prefix, Meta(description="Token in front of all subjects and bucket names.")
    ] = ""
    node: Annotated[
        NodeName, Meta(description="Name of this machine; by default its host name.")
    ] = "local"
    store: Annotated[
        StoreUrl, Meta(description="nats://BUCKET?replicas=3, disk:///PATH or memory://.")
    ] = "nats://blobs"
    apps: Annotated[
        str | None, Meta(description="Directory whose folders are the apps of this worker.")
    ] = None
    max_archives: Annotated[
        int,
        Meta(ge=1, le=256, description="Snapshots made or restored at once; more have to wait."),
    ] = 2
    snapshot_lease_seconds: Annotated[
        Seconds,
        Meta(description="Seconds without a sign of life before a pending snapshot is given up."),
    ] = 60
    prune_seconds: Annotated[
        Seconds,
        Meta(description="Seconds between two runs of the policies of snapshots, more or less."),
    ] = 3600
    max_concurrent_requests: Annotated[
        int, Meta(ge=1, le=65536, description="Requests at once; more are answered rate_limited.")
    ] = 256
    max_uploads: Annotated[
        int,
        Meta(ge=1, le=65536, description="Open uploads at once; more are answered rate_limited."),
    ] = 32
    upload_memory_bytes: Annotated[
        int, Meta(ge=4 * MIB, description="Bytes of memory for the parts of all uploads.")
    ] = UPLOAD_MEMORY_BYTES
    upload_lease_seconds: Annotated[
        Seconds, Meta(description="Seconds without a sign of life before an upload is given up.")
    ] = 300
    collect_every_seconds: Annotated[
        Seconds, Meta(description="Seconds between two collections of what nothing needs.")
    ] = 3600
    collect_bytes_per_second: Annotated[
        int, Meta(ge=MIB, description="Bytes a second that a collection goes through, at the most.")
    ] = 64 * MIB
    scrub_days: Annotated[
        float, Meta(gt=0, le=90, description="Days between two laps in which all is read back.")
    ] = 7
    scrub_bytes_per_second: Annotated[
        int, Meta(ge=MIB // 16, description="Bytes a second that are read back, at the most.")
    ] = 8 * MIB
    request_timeout_seconds: Annotated[
        Seconds, Meta(description="Deadline, in seconds, of a request that names none.")
    ] = 30
    drain_seconds: Annotated[
        Seconds, Meta(description="Seconds that requests in flight may take after SIGTERM.")
    ] = 10
    inbox_prefixes: Annotated[
        tuple[ReplyPrefix, ...],
        Meta(
            min_length=1,
            max_length=16,
            description="Prefixes of the reply subjects that are answered.",
        ),
    ] = ("_INBOX.", "_R_.")
    require_sync: Annotated[
        bool, Meta(description="Start only on servers that are known to sync their writes.")
    ] = False
    monitor_url: Annotated[
        tuple[HttpUrl, ...],
        Meta(
            max_length=64,
            description="Monitoring URLs of all nats-servers; require_sync needs them.",
        ),
    ] = ()
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="auto: console on a terminal, else json."),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Lowest level that is logged."),
    ] = "info"
    metrics_port: Annotated[
        Port | None, Meta(description="Port of the Prometheus metrics; without it there are none.")
    ] = None
    metrics_host: Annotated[
        str, Meta(min_length=1, description="Address on which the metrics are served.")
    ] = "127.0.0.1"
    link_keys: Annotated[
        str | None, Meta(description="File with the keys of links; read again when it changes.")
    ] = None
    public_url: Annotated[
        HttpUrl | None, Meta(description="URL by which clients reach gateways, for links.")
    ] = None


class LoadedConfig(Struct, frozen=True, kw_only=True):
    """A config, and for each of its values (``nats.servers``, ``store``, …) where it came from."""

    config: Config
    sources: dict[str, str]

    def values(self) -> Iterator[tuple[str, Any, str]]:
        """Every setting as (key, value, source), secrets masked, in the struct's order."""
        for name in NatsOptions.__struct_fields__:
            key = f"nats.{name}"
            yield key, masked(name, getattr(self.config.nats, name)), self.sources[key]
        for name in SETTINGS:
            yield name, getattr(self.config, name), self.sources[name]


SETTINGS: Final = tuple(name for name in Config.__struct_fields__ if name != "nats")
"""The settings beside those of NATS: each is a key of the file, a variable and a flag."""

LISTS: Final = frozenset({"inbox_prefixes", "monitor_url"})
"""Of these, the settings that hold several values; commas separate them in a variable."""

_TYPES: Final = get_type_hints(Config, include_extras=True)
_NATS_TYPES: Final = get_type_hints(NatsOptions, include_extras=True)


class _Layer(Struct):
    """Settings of one origin. ``sources`` names the place of each key; see LoadedConfig."""

    settings: dict[str, Any]
    sources: dict[str, str]
    context: str | None = None
    strict: bool = True


def variable_of(key: str) -> str | None:
    """The environment variable that sets ``key``, if there is one."""
    if key.startswith("nats."):
        fields = {f"nats.{name}": variable for variable, name in ENVIRONMENT.items()}
        return fields.get(key)
    return VARIABLE_PREFIX + key.upper()


def load_config(
    *,
    flags: Mapping[str, Any] | None = None,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    hostname: str | None = None,
) -> LoadedConfig:
    """Everything merged. ``flags`` maps keys to typed values, and ``nats.context`` to a name.

    Reads ``config_file``, or the one that ``HOLDFAST_CONFIG`` names, ``environ`` (``os.environ``
    by default), and NATS contexts. Raises InvalidError: a file that cannot be read, an unknown
    key, a value that does not fit, an unknown context.
    """
    environ = os.environ if environ is None else environ
    path = config_file or (Path(named) if (named := environ.get(CONFIG_VARIABLE)) else None)
    layers = [
        _file_layer(path) if path else _Layer(settings={}, sources={}),
        _environment_layer(environ),
        _flag_layer(flags or {}),
    ]
    merged = _merge(layers, environ)
    node_default = hostname or socket.gethostname() or Config().node
    return _build(merged, node_default)


def _file_layer(path: Path) -> _Layer:
    try:
        content = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, RuntimeError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidError(f"configuration file {path}: {error}") from error
    nats = content.pop("nats", {})
    if not isinstance(nats, dict):
        raise InvalidError(f"configuration file {path}: 'nats' is a table: [nats]")
    context = nats.pop("context", None)
    if context is not None and not isinstance(context, str):
        raise InvalidError(f"configuration file {path}: 'nats.context' is a name")
    settings = content | {f"nats.{name}": value for name, value in nats.items()}
    if isinstance(settings.get("monitor_url"), str):  # one, or as in the environment
        settings["monitor_url"] = split_list(settings["monitor_url"])
    known = {*SETTINGS, *(f"nats.{name}" for name in NatsOptions.__struct_fields__)}
    if unknown := sorted(settings.keys() - known):
        raise InvalidError(f"configuration file {path}: unknown key {unknown[0]!r}")
    return _Layer(settings=settings, sources=dict.fromkeys(settings, str(path)), context=context)


def _environment_layer(environ: Mapping[str, str]) -> _Layer:
    layer = _Layer(settings={}, sources={}, context=environ.get(CONTEXT_VARIABLE), strict=False)
    for name, value in environment_settings(environ).items():
        layer.settings[f"nats.{name}"] = value
    for name in SETTINGS:
        if value := environ.get(VARIABLE_PREFIX + name.upper()):
            layer.settings[name] = split_list(value) if name in LISTS else value
    layer.sources.update({key: f"${variable_of(key)}" for key in layer.settings})
    return layer


def _flag_layer(flags: Mapping[str, Any]) -> _Layer:
    settings = {key: value for key, value in flags.items() if value is not None}
    context = settings.pop("nats.context", None)
    if isinstance(settings.get("nats.servers"), str):
        settings["nats.servers"] = split_servers(settings["nats.servers"])
    if isinstance(settings.get("monitor_url"), str):
        settings["monitor_url"] = split_list(settings["monitor_url"])
    sources = {key: f"--{flag_of(key)}" for key in settings}
    return _Layer(settings=settings, sources=sources, context=context, strict=False)


def flag_of(key: str) -> str:
    """The name of the flag that sets ``key``, without its dashes."""
    name = "server" if key == "nats.servers" else key.removeprefix("nats.")
    return {"nats.name": "connection-name"}.get(key, name).replace("_", "-")


def _merge(layers: list[_Layer], environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Key to (checked value, source), the last layer that has it winning.

    A context lies just below the layer that named it, and replaces what lower layers said of
    NATS: a file's password is not for a context's server.
    """
    merged: dict[str, tuple[Any, str]] = {}
    server_named = any(layer.context or "nats.servers" in layer.settings for layer in layers)
    if not server_named and (selected := selected_context(environ)):
        _put(merged, _context_layer(selected, f"selected NATS context {selected}", environ))
    for layer in layers:
        if layer.context:
            merged = {key: at for key, at in merged.items() if not key.startswith("nats.")}
            source = f"NATS context {layer.context}"
            _put(merged, _context_layer(layer.context, source, environ))
        _put(merged, layer)
    return merged


def _context_layer(name: str, source: str, environ: Mapping[str, str]) -> _Layer:
    settings = {f"nats.{key}": value for key, value in read_context(name, environ).items()}
    return _Layer(settings=settings, sources=dict.fromkeys(settings, source))


def _put(merged: dict[str, tuple[Any, str]], layer: _Layer) -> None:
    credentials = {f"nats.{name}" for name in CREDENTIAL_FIELDS}
    if credentials & layer.settings.keys():
        for key in credentials:
            merged.pop(key, None)
    for key, value in layer.settings.items():
        source = layer.sources[key]
        merged[key] = (_checked(key, value, source, strict=layer.strict), source)


def _checked(key: str, value: Any, source: str, *, strict: bool) -> Any:
    kind = _NATS_TYPES[key.removeprefix("nats.")] if key.startswith("nats.") else _TYPES[key]
    return checked_value(key, value, kind, source, strict=strict)


def _build(merged: Mapping[str, tuple[Any, str]], node_default: str) -> LoadedConfig:
    values = {key: value for key, (value, _) in merged.items()}
    sources = {key: source for key, (_, source) in merged.items()}
    if "node" not in values:
        sources["node"] = "host name"
        values["node"] = _checked("node", node_default, "host name", strict=True)
    nats = NatsOptions(
        **{key.removeprefix("nats."): values.pop(key) for key in list(values) if "." in key}
    )
    keys = (*(f"nats.{name}" for name in NatsOptions.__struct_fields__), *SETTINGS)
    return LoadedConfig(
        config=Config(nats=nats, **values),
        sources={key: sources.get(key, DEFAULT) for key in keys},
    )
