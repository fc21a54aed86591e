"""Options to reach NATS: servers, credentials, TLS, as one value.

The one place that knows how nats-py wants to be told. Where the values come from is not known
here: see ``contexts`` for the ``nats`` command's files and environment, ``runtime.config`` for the
rest. Secrets are kept out of ``repr``, since options end up in logs and tracebacks.
"""

from __future__ import annotations

import base64
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Meta, Struct

from holdfast.errors import InvalidError

DEFAULT_PORT: Final = 4222
DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"
MASK: Final = "***"

SECRET_FIELDS: Final = frozenset({"password", "token"})
"""Always secret. An nkey is one only where it is the seed itself, a server where it has a user."""

CREDENTIAL_FIELDS: Final = frozenset({"user", "password", "token", "creds", "nkey"})
"""Setting one of these says who connects, and replaces all credentials set before."""

_SENT_FIELDS: Final = ("servers", "name", "user", "password", "token", "inbox_prefix")

PING_INTERVAL_SECONDS: Final = 5
"""nats-py notices a dead connection by its pings alone (two minutes apart unless told). The third
that stays unanswered ends it; where something is waited for, ``liveness`` is quicker."""

_SEED_RE: Final = re.compile(r"S[A-Z][A-Z2-7]{56}", re.ASCII)
_USER_INFO_RE: Final = re.compile(r"//.*@")
_DECORATED_RE: Final = re.compile(r"-{3,}.*-{3,}\r?\n\s*([\w.=-]+)\s*\r?\n-{3,}.*-{3,}", re.ASCII)

ServerUrl = Annotated[str, Meta(pattern=r"^(nats|tls|ws|wss)://[^\s/]+/?$(?!\n)")]
Domain = Annotated[str, Meta(pattern=r"^[^\s.*>]+$(?!\n)", max_length=128)]
InboxPrefix = Annotated[str, Meta(pattern=r"^[^\s.*>]+(\.[^\s.*>]+)*$(?!\n)", max_length=128)]


class NatsOptions(Struct, frozen=True, kw_only=True):
    """Where NATS is and who connects to it. Paths may begin with ``~``.

    ``nkey`` is the path of a file with a seed, or the seed. When several credentials are given,
    the first of user, creds, nkey and token counts, as it does for the ``nats`` command; a user
    without a password is a token, as there. One in a server's URL counts where none of these is
    given; it is percent-encoded. ``tls_first`` starts TLS before the server's greeting.
    ``jetstream_domain`` is where the store is: only those who reach it themselves ask there.
    """

    servers: Annotated[tuple[ServerUrl, ...], Meta(min_length=1, max_length=64)] = (DEFAULT_SERVER,)
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
    jetstream_domain: Domain | None = None

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
    """The keyword arguments of nats-py's ``Client.connect``, but for who connects (``login``).

    Reads the TLS files and the credentials, to make sure of them: nats-py would report a missing
    one as if no server had answered. Raises InvalidError with the option's name.
    """
    for field in _SENT_FIELDS:
        if not _is_utf8(getattr(options, field) or ""):
            raise InvalidError(f"{field}: it is not UTF-8")
    servers = [_url(server) for server in options.servers]
    login(options, servers[0].hostname or "", servers[0].port, nonce="")
    arguments: dict[str, Any] = {
        "servers": [f"{url.scheme}://{url.netloc.rpartition('@')[2]}" for url in servers],
        "max_reconnect_attempts": -1,
        "ping_interval": PING_INTERVAL_SECONDS,
        "inbox_prefix": options.inbox_prefix,
        "tls_handshake_first": options.tls_first,
    }
    if options.name is not None:
        arguments["name"] = options.name
    context = tls_context(options)
    if context is not None:
        arguments["tls"] = context
    return arguments


def _is_utf8(value: str | tuple[str, ...]) -> bool:
    try:
        "".join(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _url(server: str) -> SplitResult:
    """Raises InvalidError without repeating what may be a password."""
    try:
        url = urlsplit(server)
        if url.hostname and url.port != 0:
            return url
    except ValueError:  # no port, or not an IPv6 address
        pass
    shown = masked("servers", (server,))[0]
    raise InvalidError(
        f"servers: {shown} is not an address: a port is 1 to 65535, and in a user or password"
        " / ? # [ ] are written %2F %3F %23 %5B %5D"
    )


def login(
    options: NatsOptions, host: str, port: int | None, *, nonce: str | None
) -> dict[str, str]:
    """The fields of CONNECT that say who connects to the server at ``host`` and ``port``.

    Files are read anew each time. A server's URL may name a user; one that other servers told of
    is given the user that one of ours has. Raises InvalidError with the option's name.
    """
    if options.user:
        if options.password:
            return {"user": options.user, "pass": options.password}
        return {"auth_token": options.user}
    if options.creds:
        jwt, seed = _read_credentials(options.creds)
        return _signed("creds", seed, nonce, jwt=jwt)
    if options.nkey:
        given = options.nkey
        seed = given if is_seed(given) else _text_of("nkey", given)
        return _signed("nkey", seed.strip(), nonce, jwt=None)
    if options.token:
        return {"auth_token": options.token}
    return _login_of_urls([_url(server) for server in options.servers], host, port)


def _login_of_urls(urls: list[SplitResult], host: str, port: int | None) -> dict[str, str]:
    ours = [url for url in urls if _place(url.hostname, url.port) == _place(host, port)]
    named = [url for url in ours or urls if url.username is not None]
    if not named:
        return {}
    user, password = unquote(named[0].username or ""), named[0].password
    return {"auth_token": user} if password is None else {"user": user, "pass": unquote(password)}


def _place(host: str | None, port: int | None) -> tuple[str, int]:
    return (host or "").lower(), port or DEFAULT_PORT


def _signed(field: str, seed: str, nonce: str | None, *, jwt: str | None) -> dict[str, str]:
    """The answer to the server's ``nonce``; nothing to one that sends none: it knows no users."""
    import nkeys  # noqa: PLC0415 - loads a library, and most have no use for it

    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        signature = base64.b64encode(pair.sign((nonce or "").encode())).decode()
        who = {"nkey": pair.public_key.decode()} if jwt is None else {"jwt": jwt}
    except (nkeys.NkeysError, ValueError) as error:
        raise InvalidError(f"{field}: its content is not the seed of an nkey") from error
    return {} if nonce is None else who | {"sig": signature}


def _read_credentials(path: str) -> tuple[str, str]:
    """A user's JWT and seed, out of a file as ``nsc`` makes it."""
    found = _DECORATED_RE.findall(_text_of("creds", path))
    if len(found) < 2:
        raise InvalidError(f"creds: {path} holds no JWT and seed of a user")
    return found[0], found[1]


def _text_of(field: str, path: str) -> str:
    try:
        return _readable(field, path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{field}: cannot read {path}: it is not text") from error


def tls_context(options: NatsOptions) -> ssl.SSLContext | None:
    """None where nats-py's default does: no TLS, or ``tls://`` with the system's authorities.

    Raises InvalidError with the option's name.
    """
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
