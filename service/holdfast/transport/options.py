"""How to reach NATS: servers, credentials and TLS, as one value.

The one place that knows how nats-py wants to be told. Where the values come from is not known
here: see ``contexts`` for the ``nats`` command's files and environment, ``runtime.config`` for the
rest. Secrets are kept out of ``repr``, since options end up in logs and tracebacks.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from holdfast.errors import InvalidError

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"
MASK: Final = "***"

SECRET_FIELDS: Final = frozenset({"password", "token"})
"""Always secret. An nkey is one only where it is the seed itself, a server where it has a user."""

CREDENTIAL_FIELDS: Final = frozenset({"user", "password", "token", "creds", "nkey"})
"""Whoever sets one of these says who connects, and replaces what was said before as a whole."""

PING_INTERVAL_SECONDS: Final = 5
"""nats-py notices a dead connection by its pings alone (two minutes apart unless told). The third
that stays unanswered ends it; where something is waited for, ``liveness`` is quicker."""

_SEED_RE: Final = re.compile(r"S[A-Z][A-Z2-7]{56}", re.ASCII)
_USER_INFO_RE: Final = re.compile(r"//[^/@]*@")

Server = Annotated[str, Meta(pattern=r"^(nats|tls|ws|wss)://[^\s/]+/?$(?!\n)")]
InboxPrefix = Annotated[str, Meta(pattern=r"^[^\s.*>]+(\.[^\s.*>]+)*$(?!\n)", max_length=128)]


class NatsOptions(Struct, frozen=True, kw_only=True):
    """Where NATS is and who connects to it. Paths may begin with ``~``.

    ``nkey`` is the path of a file with a seed, or the seed. When several credentials are given,
    the first of user, creds, nkey and token counts, as it does for the ``nats`` command; a user
    without a password is a token, as there. ``tls_first`` starts TLS before the server's greeting.
    """

    servers: Annotated[tuple[Server, ...], Meta(min_length=1, max_length=64)] = (DEFAULT_SERVER,)
    name: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    creds: str | None = None
    nkey: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_first: bool = False
    inbox_prefix: InboxPrefix = "_INBOX"

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={masked(name, getattr(self, name))!r}" for name in self.__struct_fields__
        )
        return f"NatsOptions({shown})"


def masked(field: str, value: Any) -> Any:
    """``value`` of an option, fit to be shown: a secret, or the secret part of it, is ``***``."""
    if value is None:
        return None
    if field == "servers":
        return tuple(_USER_INFO_RE.sub(f"//{MASK}@", server) for server in value)
    if field in SECRET_FIELDS or (field == "nkey" and is_seed(value)):
        return MASK
    return value


def is_seed(nkey: str) -> bool:
    """Whether ``nkey`` is a seed itself and not the path of a file with one."""
    return _SEED_RE.fullmatch(nkey.strip()) is not None


def connect_arguments(options: NatsOptions) -> dict[str, Any]:
    """The keyword arguments of nats-py's ``Client.connect``.

    Reads the TLS files, and makes sure that the others are there: nats-py would report a missing
    one as if no server had answered. Raises InvalidError with the option's name.
    """
    arguments: dict[str, Any] = {
        "servers": list(options.servers),
        "max_reconnect_attempts": -1,
        "ping_interval": PING_INTERVAL_SECONDS,
        "inbox_prefix": options.inbox_prefix,
        "tls_handshake_first": options.tls_first,
        **_credentials(options),
    }
    if options.name is not None:
        arguments["name"] = options.name
    context = _tls_context(options)
    if context is not None:
        arguments["tls"] = context
    return arguments


def _credentials(options: NatsOptions) -> dict[str, str]:
    if options.user:
        if options.password:
            return {"user": options.user, "password": options.password}
        return {"token": options.user}
    if options.creds:
        return {"user_credentials": str(_readable("creds", options.creds))}
    if options.nkey:
        if is_seed(options.nkey):
            return {"nkeys_seed_str": options.nkey.strip()}
        return {"nkeys_seed": str(_readable("nkey", options.nkey))}
    if options.token:
        return {"token": options.token}
    return {}


def _tls_context(options: NatsOptions) -> ssl.SSLContext | None:
    """None where nats-py's default does: no TLS, or ``tls://`` with the system's authorities."""
    if not (options.tls_ca or options.tls_cert or options.tls_key or options.tls_first):
        return None
    if (options.tls_cert is None) != (options.tls_key is None):
        raise InvalidError("tls_cert and tls_key are given together or not at all")
    authorities = _readable("tls_ca", options.tls_ca) if options.tls_ca else None
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (ssl.SSLError, OSError) as error:
        raise InvalidError(f"tls_ca: {options.tls_ca} holds no certificates in PEM form") from error
    if options.tls_cert and options.tls_key:
        certificate = _readable("tls_cert", options.tls_cert)
        key = _readable("tls_key", options.tls_key)
        try:
            context.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            pair = f"{options.tls_cert} and {options.tls_key}"
            raise InvalidError(f"tls_cert, tls_key: {pair} do not belong together") from error
    return context


def _readable(field: str, path: str) -> Path:
    """The path of a file that can be opened, ``~`` expanded. Raises InvalidError."""
    try:
        expanded = Path(path).expanduser()
        with expanded.open("rb"):
            return expanded
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidError(f"{field}: cannot read {path}: {reason}") from error
