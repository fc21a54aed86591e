"""Settings of a gateway: defaults, ``HOLDFAST_…`` variables, flags; each over the one before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

from msgspec import Meta, Struct

from holdfast.domain.limits import KIB, MAX_BLOB_BYTES, MIB
from holdfast.domain.setting_values import VARIABLE_PREFIX, checked_value, split_list
from holdfast.errors import InvalidError
from holdfast.protocol.message import WireName

if TYPE_CHECKING:
    from collections.abc import Mapping

Origin = Annotated[str, Meta(pattern=r"^(\*|https?://[^\s/,]+)$(?!\n)")]
ClientsUrl = Annotated[str, Meta(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$(?!\n)")]
Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
Wait = Annotated[float, Meta(gt=0, le=86400)]


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """The settings of one gateway. Sizes are bytes, times seconds."""

    listen: Annotated[
        str,
        Meta(
            pattern=r"^([^\s:\[\]]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$(?!\n)",
            description="Address and port; without an address, every one of this machine.",
        ),
    ] = "127.0.0.1:7777"
    public_url: Annotated[
        ClientsUrl | None, Meta(description="URL by which clients reach it, if not its own.")
    ] = None
    tokens: Annotated[
        str | None, Meta(description="File with the hashes of bearer tokens; read when it changes.")
    ] = None
    link_keys: Annotated[
        str | None, Meta(description="File with the keys of links; read again when it changes.")
    ] = None
    tls_cert: Annotated[
        str | None, Meta(description="File with the certificate (and those above it) for HTTPS.")
    ] = None
    tls_key: Annotated[
        str | None, Meta(description="File with the private key of that certificate.")
    ] = None
    cors_origins: Annotated[
        tuple[Origin, ...],
        Meta(max_length=64, description="Origins whose pages may use it in a browser; * is any."),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(max_length=64, description="Addresses whose X-Forwarded-For and -Proto are believed."),
    ] = ()
    state: Annotated[
        WireName | None, Meta(description="The state of the paths /state and /command.")
    ] = None
    max_body_bytes: Annotated[int, Meta(ge=0, description="Bytes of the body of a request.")] = (
        MAX_BLOB_BYTES
    )
    max_header_bytes: Annotated[
        int, Meta(ge=KIB, le=MIB, description="Bytes of a request line and its headers.")
    ] = 32 * KIB
    header_seconds: Annotated[
        Wait, Meta(description="Seconds in which a request's headers must have come.")
    ] = 10
    body_seconds: Annotated[
        Wait,
        Meta(description="Seconds that a body may bring, or its reader take, nothing."),
    ] = 30
    keep_alive_seconds: Annotated[
        Wait, Meta(description="Seconds that an idle connection is kept.")
    ] = 60
    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Connections; the longest idle one makes room.")
    ] = 8192
    max_requests: Annotated[
        int, Meta(ge=1, le=65536, description="Requests at once; more are answered 429.")
    ] = 512
    requests_per_second: Annotated[
        Rate | None, Meta(description="Requests a second of one address; more get 429.")
    ] = None
    memory_bytes: Annotated[
        int, Meta(ge=32 * MIB, description="Bytes of memory to read ahead, and for uploads; each.")
    ] = 64 * MIB
    drain_seconds: Annotated[
        Wait, Meta(description="Seconds that requests in flight may take after SIGTERM.")
    ] = 10

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on; the host is empty for every address."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    def url(self, port: int) -> str:
        """Where clients reach it while it listens on ``port``."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        host, _ = self.address
        name = f"[{host}]" if ":" in host else host or "127.0.0.1"
        return f"{'https' if self.tls_cert else 'http'}://{name}:{port}"


LISTS: Final = frozenset({"cors_origins", "trusted_proxies"})
"""Settings that hold several values; commas separate them in a variable and in a flag."""

SHARED: Final = frozenset({"link_keys", "public_url"})
"""Settings that workers have under the same name."""

_MAX_PORT: Final = 65535
_TYPES: Final = get_type_hints(GatewaySettings, include_extras=True)


def load_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> GatewaySettings:
    """The settings; ``flags`` that are None are not given. Raises InvalidError."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for name in GatewaySettings.__struct_fields__:
        value, source = flags.get(name), f"--{name.replace('_', '-')}"
        if value is None:
            variable = setting_variable(name)
            value, source = environ.get(variable) or None, f"${variable}"
        if name in LISTS and isinstance(value, str):
            value = split_list(value)
        if value is not None:
            values[name] = checked_value(name, value, _TYPES[name], source)
    settings = GatewaySettings(**values)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise InvalidError("a certificate and its key go together: set tls_cert and tls_key")
    if settings.address[1] > _MAX_PORT:
        raise InvalidError(f"listen: a port is at most {_MAX_PORT}")
    return settings


def setting_variable(name: str) -> str:
    """The environment variable that sets ``name``; workers have some of them, too."""
    if name in SHARED:
        return f"{VARIABLE_PREFIX}{name.upper()}"
    return f"{VARIABLE_PREFIX}GATEWAY_{name.upper()}"
