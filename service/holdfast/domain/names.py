"""Names of apps, snapshots and labels, and how they become tokens of a subject.

A name is checked before it is used anywhere: app names become directories and subjects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import MAX_LABELS
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAME_CHARS: Final = 128
MAX_LABEL_VALUE_CHARS: Final = 256
MAX_LABEL_TOKENS_CHARS: Final = 600
"""Of a key and its value as tokens. With the longest app (382) and an id they are one record's key,
which has at most 1,024.
"""

_NAME: Final = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{MAX_NAME_CHARS - 1}}}", re.ASCII)
_ID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)
_ESCAPED: Final = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)
_TOKEN: Final = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})*", re.ASCII)
_ESCAPE: Final = re.compile(r"=([0-9A-F]{2})", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MAX_ID_MS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND


@dataclass(frozen=True, slots=True)
class SnapshotKey:
    """``<app>:<id>``. ``id`` is a UUID of version 7 in its canonical lower-case form."""

    app: str
    id: str

    @classmethod
    def parse(cls, text: str) -> SnapshotKey:
        """The key that ``text`` spells. Raises InvalidError."""
        app, colon, snapshot_id = text.partition(":")
        if not colon:
            raise InvalidError("a snapshot's key is <app>:<id>")
        return cls(check_app(app), check_id(snapshot_id))

    def __str__(self) -> str:
        """The key as callers write it."""
        return f"{self.app}:{self.id}"


def check_app(text: str) -> str:
    """``text``, if it may name an app. Raises InvalidError.

    1 to 128 of ``A-Z a-z 0-9 . _ -``, the first of them not a dot.
    """
    if _NAME.fullmatch(text) is None:
        msg = "an app's name is 1 to 128 of A-Z a-z 0-9 . _ - and does not begin with a dot"
        raise InvalidError(msg)
    return text


def check_id(text: str) -> str:
    """``text``, if it is a UUID of version 7 in canonical lower-case form. Raises InvalidError."""
    if _ID.fullmatch(text) is None or _milliseconds(text) > _MAX_ID_MS:
        raise InvalidError("a snapshot's id is a UUID of version 7 in lower case")
    return text


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises InvalidError unless these may label a snapshot or a name: at most 64.

    Keys are as names of apps; values have 1 to 256 printable characters.
    """
    if len(labels) > MAX_LABELS:
        raise InvalidError(f"there are at most {MAX_LABELS} labels")
    for key, value in labels.items():
        if _NAME.fullmatch(key) is None:
            msg = "a label's key is 1 to 128 of A-Z a-z 0-9 . _ - and does not begin with a dot"
            raise InvalidError(msg)
        _check_value(key, value)


def _check_value(key: str, value: str) -> None:
    if not 0 < len(value) <= MAX_LABEL_VALUE_CHARS or not value.isprintable():
        msg = f"label {key}: a value has 1 to {MAX_LABEL_VALUE_CHARS} printable characters"
        raise InvalidError(msg)
    if len(token(key)) + len(token(value)) > MAX_LABEL_TOKENS_CHARS:
        msg = (
            f"label {key}: key and value are too long: written with =XX for each byte outside "
            f"A-Z a-z 0-9 _ - they may have {MAX_LABEL_TOKENS_CHARS} characters together"
        )
        raise InvalidError(msg)


def token(text: str) -> str:
    """``text`` as one token of a subject; different texts have different tokens.

    Each UTF-8 byte outside ``A-Z a-z 0-9 _ -`` is written ``=XX``. Raises UnicodeEncodeError for
    lone surrogates: check the text first.
    """
    return _ESCAPED.sub(_escape, text)


def untoken(text: str) -> str:
    """The text whose token is ``text``. Raises InvalidError when there is none."""
    try:
        plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).encode("latin-1").decode()
    except UnicodeError:
        plain = ""
    # One spelling only: what this text is written as must be what was read.
    if _TOKEN.fullmatch(text) is None or token(plain) != text:
        raise InvalidError("the token is not the encoding of a name")
    return plain


def created_at_of(snapshot_id: str) -> datetime:
    """When the checked ``snapshot_id`` was made, to the millisecond."""
    return _EPOCH + _milliseconds(snapshot_id) * _MILLISECOND


def id_floor(at: datetime) -> str:
    """The smallest id made in the millisecond of ``at``, which has a time zone.

    Ids made in that millisecond or later are not smaller. Times before 1970 count as 1970.
    """
    digits = f"{max((at - _EPOCH) // _MILLISECOND, 0):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def later_id(snapshot_id: str, newest: str | None) -> str:
    """``snapshot_id``, or where its time is not later than that of ``newest``, the next later one.

    Both are checked ids. Workers make ids by clocks of their own: taken as they are, an app's
    newest snapshot would be that of the worker whose clock is ahead.
    """
    if newest is None or _milliseconds(snapshot_id) > _milliseconds(newest):
        return snapshot_id
    digits = f"{min(_milliseconds(newest) + 1, _MAX_ID_MS):012x}"
    return f"{digits[:8]}-{digits[8:]}{snapshot_id[13:]}"


def _escape(match: re.Match[str]) -> str:
    return "".join(f"={byte:02X}" for byte in match[0].encode())


def _milliseconds(snapshot_id: str) -> int:
    return int(snapshot_id[:8] + snapshot_id[9:13], 16)
