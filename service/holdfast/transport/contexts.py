"""NATS contexts and ``NATS_*`` variables, with the meaning that the ``nats`` command gives them.

A context is a JSON file, ``nats/context/<name>.json`` under ``$XDG_CONFIG_HOME`` or ``~/.config``;
``nats/context.txt`` beside the folder names the selected one. An operator who has set up ``nats``
has thereby set up holdfast. One thing is different: the *selected* context is left alone when a
server was named some other way, so that its credentials are not sent to a server they are not for.

Settings of a context that only concern the look of ``nats``, or events that nobody here listens to,
are ignored. All others that cannot be honoured (``nsc``, a SOCKS proxy, a bare JWT, the Windows
certificate store, credentials that are kept elsewhere), and those that are not known, are refused.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import InvalidError
from holdfast.transport.options import CREDENTIAL_FIELDS, NatsOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT: Final[Mapping[str, str]] = {
    "NATS_URL": "servers",
    "NATS_USER": "user",
    "NATS_PASSWORD": "password",
    "NATS_TOKEN": "token",
    "NATS_CREDS": "creds",
    "NATS_NKEY": "nkey",
    "NATS_CA": "tls_ca",
    "NATS_CERT": "tls_cert",
    "NATS_KEY": "tls_key",
}
"""Variable to field of NatsOptions. ``NATS_CONTEXT`` beside them names a context."""

CONTEXT_VARIABLE: Final = "NATS_CONTEXT"

_CONTEXT_FIELDS: Final[Mapping[str, str]] = {
    "url": "servers",
    "user": "user",
    "password": "password",
    "token": "token",
    "creds": "creds",
    "nkey": "nkey",
    "ca": "tls_ca",
    "cert": "tls_cert",
    "key": "tls_key",
    "tls_first": "tls_first",
    "inbox_prefix": "inbox_prefix",
    "jetstream_domain": "jetstream_domain",
}
_PATH_FIELDS: Final = frozenset({"creds", "nkey", "tls_ca", "tls_cert", "tls_key"})
_KEPT_FIELDS: Final = _PATH_FIELDS | {"password", "token"}
_IGNORED_KEYS: Final = frozenset(
    {
        "name",
        "description",
        "color_scheme",
        "jetstream_event_prefix",
        "windows_cert_match_by",  # these three say what to take of a `windows_cert_store`
        "windows_cert_match",
        "windows_ca_certs_match",
    }
)
_DEFAULT_VALUES: Final = {"jetstream_api_prefix": "$JS.API"}
_ELSEWHERE_RE: Final = re.compile(r"(op|nsc|env|data|file):", re.IGNORECASE)
_FILE_RE: Final = re.compile("file://", re.IGNORECASE)
_VARIABLE_RE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


def options_from_environment(environ: Mapping[str, str] | None = None) -> NatsOptions:
    """The servers of the ``nats`` command's context, given ``environ`` (``os.environ`` by default).

    A variable beats the context. Raises InvalidError for an unknown or unreadable context and for
    values that cannot be meant.
    """
    environ = os.environ if environ is None else environ
    settings = environment_settings(environ)
    name = environ.get(CONTEXT_VARIABLE) or None
    if name is None and "servers" not in settings:
        name = selected_context(environ)
    if name is not None:
        settings = overlay(read_context(name, environ), settings)
    return to_options(settings)


def to_options(settings: Mapping[str, Any]) -> NatsOptions:
    """``settings`` checked. Raises InvalidError without repeating the value: it may be a secret."""
    try:
        return msgspec.convert(settings, NatsOptions)
    except msgspec.ValidationError as error:
        raise InvalidError(f"NATS options: {error}") from error


def environment_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Fields of NatsOptions that variables set. An empty variable counts as unset."""
    return {
        field: split_servers(value) if field == "servers" else value
        for variable, field in ENVIRONMENT.items()
        if (value := environ.get(variable))
    }


def overlay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """``upper`` over ``lower``. Credentials are replaced as a whole, never mixed."""
    from_lower = dict(lower)
    if CREDENTIAL_FIELDS & upper.keys():
        for field in CREDENTIAL_FIELDS:
            from_lower.pop(field, None)
    return {**from_lower, **upper}


def split_servers(text: str) -> tuple[str, ...]:
    """Servers separated by commas; one without a scheme is ``nats://``."""
    servers = (server.strip() for server in text.split(","))
    return tuple(server if "://" in server else f"nats://{server}" for server in servers if server)


def selected_context(environ: Mapping[str, str]) -> str | None:
    """The name of the context that ``nats context select`` chose, if any."""
    if not environ.get("XDG_CONFIG_HOME") and _home_or_none(environ) is None:
        return None
    try:
        name = (_nats_directory(environ) / "context.txt").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"the selected NATS context cannot be read: {error}") from error
    return name or None


def read_context(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The fields of NatsOptions that context ``name`` sets.

    Like the ``nats`` command, takes the path of a ``.json`` file too. Raises InvalidError for an
    unknown context, one that is not understood, and one that needs what holdfast cannot do.
    """
    path = _context_path(name, environ)
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        raise InvalidError(f"unknown NATS context {name!r}: there is no {path}") from error
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidError(f"NATS context {name!r}: {path}: {error}") from error
    for key, value in content.items():
        is_known = key in _CONTEXT_FIELDS or key in _IGNORED_KEYS
        if value and not is_known and value != _DEFAULT_VALUES.get(key):
            raise InvalidError(f"NATS context {name!r} sets {key!r}, which holdfast cannot use")
    settings: dict[str, Any] = {}
    for key, field in _CONTEXT_FIELDS.items():
        value = content.get(key)
        if not value:
            continue
        if field != "tls_first" and not isinstance(value, str):
            raise InvalidError(f"NATS context {name!r}: {key!r} is not text")
        settings[field] = _expanded(field, value, environ)
        if isinstance(value, str) and field in _KEPT_FIELDS and _is_elsewhere(settings[field]):
            raise InvalidError(f"NATS context {name!r}: {key!r} is kept where holdfast cannot look")
    return settings


def _expanded(field: str, value: Any, environ: Mapping[str, str]) -> Any:
    """``value`` of a context as the ``nats`` command takes it."""
    if field == "servers":
        return split_servers(value)
    if field in _PATH_FIELDS:
        path = _VARIABLE_RE.sub(lambda m: environ.get(m[1] or m[2], ""), _FILE_RE.sub("", value, 1))
        return str(_home(environ) / path[2:]) if path.startswith("~/") else path
    return value


def _is_elsewhere(value: str) -> bool:
    """Whether it is a reference to a secret, for which ``nats`` asks other programs."""
    return _ELSEWHERE_RE.match(value) is not None


def _context_path(name: str, environ: Mapping[str, str]) -> Path:
    if name.endswith(".json") and Path(name).is_file():
        return Path(name)
    if ".." in name or "/" in name or "\0" in name or "\n" in name:
        raise InvalidError(f"{name!r} cannot be the name of a NATS context")
    return _nats_directory(environ) / "context" / f"{name}.json"


def _nats_directory(environ: Mapping[str, str]) -> Path:
    root = environ.get("XDG_CONFIG_HOME")
    return (Path(root) if root else _home(environ) / ".config") / "nats"


def _home(environ: Mapping[str, str]) -> Path:
    home = _home_or_none(environ)
    if home is None:
        raise InvalidError("there is no home directory to look for NATS contexts in: set HOME")
    return home


def _home_or_none(environ: Mapping[str, str]) -> Path | None:
    """None for a user that the system does not know, in an environment that does not say either."""
    home = environ.get("HOME")
    try:
        return Path(home) if home else Path.home()
    except RuntimeError:
        return None
