"""The named limits that both ends of the wire agree on. Sizes are bytes, times seconds."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB

MAX_DIGESTS_PER_HAS: Final = 1024
MAX_BLOBS_PER_PUT: Final = 256
MAX_LIST_LIMIT: Final = 1000
MAX_OP_ID_CHARS: Final = 64
MAX_TYPE_CHARS: Final = 255
MAX_UPLOAD_NOTE_CHARS: Final = 4096
MAX_CURSOR_CHARS: Final = 512
MAX_NAME_CURSOR_CHARS: Final = 1024
MAX_INDEX_ENTRIES: Final = 4096
MAX_LABELS: Final = 64
MAX_COMMANDS: Final = 1000
"""Of one append, and of one group that a log has in one message."""

MAX_COMMAND_NESTING: Final = 512
MAX_FOREIGN_HLC_CHARS: Final = 128

MAX_WATCHES: Final = 1000
"""Watches of one worker at a time."""

MAX_BLOB_BYTES: Final = 16 * TIB
"""Far beyond any bucket; keeps sizes inside what JSON numbers carry exactly."""

MAX_TOTAL: Final = 2**53
"""Of anything that is summed up over a snapshot: what a JSON number carries exactly. No bound on
what a store holds, but on what a sparse file, or a manifest by a stranger, may claim.
"""

WINDOW_BYTES: Final = 4 * MIB
"""One window of a download: there is no flow control inside it."""

UPLOAD_WINDOW_BYTES: Final = 8 * MIB
"""Bytes that one upload may have unacknowledged, if its worker has the memory."""

UPLOAD_MEMORY_BYTES: Final = 40 * MIB
"""The windows of all uploads of one worker. Those of three stay below what a server lets wait for
one stream, which is 128 MiB: beyond, it turns writes away."""

PART_BYTES: Final = 512 * KIB
_HEADROOM_BYTES: Final = 64 * KIB
_SMALL_HEADROOM_BYTES: Final = 4 * KIB


def max_inline_bytes(max_payload: int) -> int:
    """The largest body of one message, for a server that takes ``max_payload`` bytes.

    64 KiB are left for headers; a server with a tiny limit gives half of it instead.
    """
    return max(max_payload - _HEADROOM_BYTES, max_payload // 2)


def part_bytes(max_payload: int) -> int:
    """The part size of an upload: 512 KiB, or the largest power of two that fits with headers."""
    room = min(PART_BYTES, max(max_payload - _SMALL_HEADROOM_BYTES, max_payload // 2))
    return 1 << (max(room, 1).bit_length() - 1)
