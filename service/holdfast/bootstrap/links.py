"""The parts of a worker that deal with links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.domain.link_keys import LinkSigner, read_keys
from holdfast.domain.link_targets import PublicUrl
from holdfast.errors import InvalidError
from holdfast.handlers.links import LinkHandlers, LinkUseHandlers
from holdfast.live_file import LiveFile
from holdfast.repository.blobs import BLOBS, BlobRepository
from holdfast.repository.links.uses import LinkUses

if TYPE_CHECKING:
    from holdfast.bootstrap.names import NameParts
    from holdfast.bootstrap.setup import Setup
    from holdfast.bootstrap.snapshots import SnapshotParts
    from holdfast.bootstrap.stores import Stores
    from holdfast.handlers.endpoint import AnyEndpoint
    from holdfast.runtime.config import Config


def assemble_links(
    setup: Setup, stores: Stores, names: NameParts, snapshots: SnapshotParts
) -> tuple[AnyEndpoint, ...]:
    """The handlers of links: without keys only the one for a use.

    Raises InvalidError, UnavailableError where the keys cannot be read.
    """
    used = LinkUseHandlers(LinkUses(stores.records)).endpoints()
    signer = _signer(setup.config)
    if signer is None:
        return used
    handlers = LinkHandlers(
        signer,
        blobs=BlobRepository({BLOBS: stores.blobs}, max_inline_bytes=setup.max_inline_bytes),
        names=names.names,
        snapshots=snapshots.ledger,
        reads=snapshots.reads,
        new_id=setup.sources.new_id,
    )
    return (*used, *handlers.endpoints())


def _signer(config: Config) -> LinkSigner | None:
    if config.link_keys is None:
        return None
    if config.public_url is None:
        msg = "link_keys is of use with public_url: say where clients reach the gateways"
        raise InvalidError(msg)
    keys = LiveFile(config.link_keys, read_keys)
    keys.read()
    return LinkSigner(keys.read, PublicUrl.parse(config.public_url))
