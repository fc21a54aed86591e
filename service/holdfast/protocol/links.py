"""Links: URLs of a gateway that are a credential for one request, and how one is used once.

Their target and their end are signed (`holdfast.domain.sigv4`). Only workers that have keys
take requests for links; any worker notes that one was used.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from holdfast.domain.sigv4 import MAX_LINK_SECONDS
from holdfast.protocol.files import WirePath, WirePathBytes
from holdfast.protocol.message import (
    Reply,
    Request,
    WireDigest,
    WireKey,
    WireName,
    WireTime,
    WireVersion,
)
from holdfast.protocol.operation import AnyOperation, Operation

LinkSeconds = Annotated[
    int, Meta(ge=1, le=MAX_LINK_SECONDS, description="Seconds that the link holds, at the most.")
]
LinkId = Annotated[
    str, Meta(pattern="^[A-Za-z0-9]{22}$", min_length=22, max_length=22, description="Link id.")
]


class LinkSnapshot(Request, frozen=True, kw_only=True):
    """A link to the ``.tar.zst`` of a snapshot; or, with a path, to one of its files.

    It is bound to the digest that the snapshot has.
    """

    key: WireKey
    ttl_seconds: LinkSeconds
    path: WirePath | None = None
    path_bytes: WirePathBytes | None = None
    single_use: bool = False


class LinkBlob(Request, frozen=True, kw_only=True):
    """A link to the blob with a ``digest``, or that a ``name`` has, or had as ``version``.

    It stays that blob's whatever becomes of the name, unless it is to be the ``latest`` at any
    time. With ``method`` PUT it is for one upload: of the bytes with that digest; or of those that
    the name is to have, which is created if it has none now, and replaced if it has.
    """

    ttl_seconds: LinkSeconds
    digest: WireDigest | None = None
    name: WireName | None = None
    version: WireVersion | None = None
    latest: bool = False
    method: Literal["GET", "PUT"] = "GET"
    single_use: bool = False


class LinkMade(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The link. It may expire earlier than asked, with the key that signed it."""

    url: str
    expires_at: WireTime


class UseLink(Request, frozen=True, kw_only=True):
    """Use the single-use link ``link``; ``ranged``: for a part of what it points at.

    The first use is any. Others follow for parts only, and for an hour.
    """

    link: LinkId
    ranged: bool = False


class LinkUsed(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """It may be used. ``first_at`` is when it was for the first time."""

    first_at: WireTime


LINK_SNAPSHOT: Final = Operation(
    "snapshot.link", LinkSnapshot, LinkMade, "Make a link to a snapshot, or a file of it."
)
LINK_BLOB: Final = Operation("blob.link", LinkBlob, LinkMade, "Make a link to a blob.")
USE_LINK: Final = Operation(
    "link.use", UseLink, LinkUsed, "Note that a single-use link is used.", mutates=True
)

LINK_OPERATIONS: Final[tuple[AnyOperation, ...]] = (LINK_SNAPSHOT, LINK_BLOB, USE_LINK)
