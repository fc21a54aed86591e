"""The answer to ``blob.get`` with ``bare``: a small blob that the store sends by itself.

It has no head, and nothing says that it is the one asked for but its digest. Whatever else comes,
the same is asked again without ``bare``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from holdfast.errors import InvalidError
from holdfast.protocol import codec
from holdfast.protocol import headers as names

if TYPE_CHECKING:
    from collections.abc import Buffer

    from holdfast.transport.message import Message


def whole_blob(message: Message, digest: str) -> Buffer | None:
    """The bytes of the blob, whoever sent them; None: ask again without ``bare``.

    Raises what a worker answered, but InvalidError: one of before there was ``bare`` refuses it.
    """
    headers = message.headers
    try:
        codec.raise_error(headers, message.data)
    except InvalidError:
        return None
    if not message.data and names.BLOB_SIZE not in headers:
        return None  # a status of the server's own, which is not the empty blob
    is_it = hashlib.sha256(message.data).hexdigest() == digest
    return message.data if is_it and names.BLOB_PARTS not in headers else None
