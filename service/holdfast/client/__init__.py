"""The package that a Python service imports."""

from __future__ import annotations

from holdfast.client.client import Client, connect
from holdfast.client.discovery import WorkerInfo
from holdfast.client.sync import SyncClient, connect_sync

__all__ = ["Client", "SyncClient", "WorkerInfo", "connect", "connect_sync"]
