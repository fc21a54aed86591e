"""What a Python service imports."""

from __future__ import annotations

from holdfast.client.client import Client, WorkerInfo, connect
from holdfast.client.sync import SyncClient, connect_sync

__all__ = ["Client", "SyncClient", "WorkerInfo", "connect", "connect_sync"]
