"""Names for the operations and their sides, so that a failing test says which."""

from __future__ import annotations

from typing import Any, Final

import pytest

from holdfast.protocol.operation import Body
from holdfast.protocol.schema.documents import sides
from holdfast.protocol.table import OPERATIONS

EACH_MESSAGE: Final = 25
"""What a property of messages is worth for each of them, see ``examples``: all are built alike.

Ten examples of each in either profile; only ``LENGTH`` makes it more.
"""

EVERY_MESSAGE: Final = [
    pytest.param(operation, side, id=f"{operation.subject} {side}")
    for operation in OPERATIONS
    for side in ("request", "reply")
]

REQUESTS_IN_BODIES: Final = [
    pytest.param(operation, id=operation.subject)
    for operation in OPERATIONS
    if operation.request_body is Body.MESSAGE
]

REQUESTS_IN_HEADERS: Final = [
    pytest.param(operation, id=operation.subject)
    for operation in OPERATIONS
    if operation.request_body is Body.BYTES
]


def kind_of(operation: Any, side: str) -> tuple[Any, Body]:
    """The type of one side's message, and how it travels."""
    return next((kind, body) for name, kind, body in sides(operation) if name == side)
