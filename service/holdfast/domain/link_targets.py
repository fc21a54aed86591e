"""The targets of links: the paths of a gateway, and where clients reach it.

Parameters that begin with ``link-`` are a link's alone: a gateway acts on them, and its routes do
not see them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, urlsplit

from holdfast.errors import InvalidError

LINK_ONCE: Final = "link-once"
"""The id of a single-use link."""

LINK_DIGEST: Final = "link-digest"
"""The digest that the snapshot must have."""

LINK_CREATE: Final = "link-create"
"""The upload creates its name, which must be free."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SAFE: Final = "-_.~"
_CONTROL_RE: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """Where clients reach the gateways: ``host`` as their requests name it, ``base`` a path."""

    scheme: str
    host: str
    base: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises InvalidError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidError(_NOT_PUBLIC) from error
        odd = parts.query or parts.fragment or parts.username is not None
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or odd:
            raise InvalidError(_NOT_PUBLIC)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        if port not in {None, _DEFAULT_PORTS[parts.scheme]}:
            host = f"{host}:{port}"
        return cls(parts.scheme, host, parts.path.rstrip("/"))

    def url(self, path: str, query: str) -> str:
        """``path`` includes ``base``."""
        return f"{self.scheme}://{self.host}{path}?{query}"


_NOT_PUBLIC: Final = "a public URL is http(s)://HOST[:PORT][/PATH]"


def blob_path(digest: str) -> str:
    """Where the blob ``digest`` is."""
    return f"/blobs/{digest}"


def name_place(name: str) -> tuple[str, str]:
    """Path and query of a named blob. Clients and proxies rewrite some paths: those use a query."""
    if fits_path(name):
        return f"/store/{quote(name, _SAFE + '/')}", ""
    return "/store", f"name={quote(name, _SAFE)}"


def fits_path(name: str) -> bool:
    """Whether a path of ``name`` arrives as it was sent.

    No segment is empty, ``.`` or ``..``, and there are no control characters.
    """
    return not {"", ".", ".."} & set(name.split("/")) and _CONTROL_RE.search(name) is None


def archive_path(key: str) -> str:
    """Where the ``.tar.zst`` of a snapshot is."""
    return f"/snapshots/{quote(key, _SAFE + ':')}/archive"


def file_path(key: str, path: bytes) -> str:
    """Where a file of a snapshot is."""
    return f"/snapshots/{quote(key, _SAFE + ':')}/files/{quote(path, _SAFE + '/')}"
