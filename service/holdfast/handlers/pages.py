"""Pages of rows that fit one message, whatever the rows hold."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.protocol.message import Reply

ReplyT = TypeVar("ReplyT", bound="Reply")
RowT = TypeVar("RowT")
EndT = TypeVar("EndT")

PAGE_OVERHEAD_BYTES: Final = 1024
"""Bytes that a page takes beside its rows."""


def fitting(rows: Sequence[ReplyT], max_bytes: int) -> list[ReplyT]:
    """The first of ``rows`` that fit a message of ``max_bytes``; one at least."""
    left = max_bytes - PAGE_OVERHEAD_BYTES
    for count, row in enumerate(rows):
        left -= len(msgspec.json.encode(row)) + 1
        if left < 0 and count:
            return list(rows[:count])
    return list(rows)


def page_of(
    rows: Sequence[RowT],
    to_message: Callable[[RowT], ReplyT],
    end_of: Callable[[RowT], EndT],
    end: EndT | None,
    max_bytes: int,
) -> tuple[list[ReplyT], EndT | None]:
    """The first of ``rows`` that fit, as ``fitting``, and where their page ends.

    It ends at ``end`` if they are all, else at the last one shown.
    """
    messages = [to_message(row) for row in rows]
    shown = fitting(messages, max_bytes)
    return shown, end if len(shown) == len(messages) else end_of(rows[len(shown) - 1])


def cursor_of(text: str) -> str:
    """``text``, behind which a page goes on, as a cursor."""
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def cursor_text(cursor: str) -> str:
    """The text that ``cursor`` was made of. Raises InvalidError."""
    try:
        return urlsafe_b64decode(f"{cursor}==").decode()
    except ValueError as error:
        raise InvalidError("not a cursor of such a page") from error
