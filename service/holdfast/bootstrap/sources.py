"""The time and the identifiers of a process."""

from __future__ import annotations

import secrets
import time
from typing import Final
from uuid import UUID

from holdfast.sources import Sources, utc_now
from holdfast.transport.fresh_ids import new_id


def new_uuid() -> str:
    """A fresh UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random ones."""
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | 7 << 76
    bits = bits & ~(0b11 << 62) | 0b10 << 62
    return str(UUID(int=bits))


SOURCES: Final = Sources(clock=utc_now, monotonic=time.monotonic, new_id=new_id, new_uuid=new_uuid)
