"""Names of the headers that holdfast and NATS services use on the wire."""

from __future__ import annotations

from typing import Final

BLOB_DIGEST: Final = "Blob-Digest"
BLOB_TYPE: Final = "Blob-Type"
BLOB_SPACE: Final = "Blob-Space"
BLOB_SIZE: Final = "Blob-Size"
BLOB_OFFSET: Final = "Blob-Offset"
BLOB_LENGTH: Final = "Blob-Length"
BLOB_PARTS: Final = "Blob-Parts"
BLOB_SKIP: Final = "Blob-Skip"
BLOB_FIRST: Final = "Blob-First"
BLOB_CURSOR: Final = "Blob-Cursor"
BLOB_PART: Final = "Blob-Part"
BLOB_FINAL: Final = "Blob-Final"
BLOB_KEEP: Final = "Blob-Keep"
BLOB_NAME: Final = "Blob-Name"
BLOB_VERSION: Final = "Blob-Version"
BLOB_LABELS: Final = "Blob-Labels"
BLOB_EXPIRES: Final = "Blob-Expires"
BLOB_IF_ABSENT: Final = "Blob-If-Absent"
BLOB_IF_VERSION: Final = "Blob-If-Version"
BLOB_IF_DIGEST: Final = "Blob-If-Digest"

CONTENT_TYPE: Final = "Content-Type"
OP_ID: Final = "Op-Id"
TIMEOUT: Final = "Timeout"
TRACEPARENT: Final = "traceparent"

SERVICE_ERROR: Final = "Nats-Service-Error"
SERVICE_ERROR_CODE: Final = "Nats-Service-Error-Code"
STATUS: Final = "Status"
"""The inline status of a message from the server itself (404, 408, 503 …)."""
DESCRIPTION: Final = "Description"
