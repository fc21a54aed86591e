"""Every operation of the wire. Schemas, discovery and a table of the docs are computed from it."""

from __future__ import annotations

from typing import Final

from holdfast.protocol.blobs import BLOB_OPERATIONS
from holdfast.protocol.care import CARE_OPERATIONS
from holdfast.protocol.links import LINK_OPERATIONS
from holdfast.protocol.names import NAME_OPERATIONS
from holdfast.protocol.operation import AnyOperation
from holdfast.protocol.retention import RETENTION_OPERATIONS
from holdfast.protocol.snapshots import SNAPSHOT_OPERATIONS
from holdfast.protocol.states import STATE_OPERATIONS
from holdfast.protocol.status import STATUS_OPERATIONS
from holdfast.protocol.watch import WATCH_OPERATIONS

OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    *BLOB_OPERATIONS,
    *NAME_OPERATIONS,
    *STATUS_OPERATIONS,
    *CARE_OPERATIONS,
    *SNAPSHOT_OPERATIONS,
    *RETENTION_OPERATIONS,
    *WATCH_OPERATIONS,
    *STATE_OPERATIONS,
    *LINK_OPERATIONS,
)
