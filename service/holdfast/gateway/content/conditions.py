"""Conditions of a request (RFC 9110, 13): entity tags and times. Decides, and does nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Literal

from holdfast.gateway.problems import HttpError

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.datastructures import Headers

ANY: Final = "*"
_TAG: Final = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')


def etag_of(digest: str) -> str:
    """The entity tag of a blob: its digest in quotes."""
    return f'"{digest}"'


@dataclass(frozen=True, slots=True)
class Representation:
    """The content: its entity tag, and its last change, where that is known."""

    etag: str
    modified_at: datetime | None = None

    @property
    def last_modified(self) -> str | None:
        """``modified_at`` as a header has it."""
        if self.modified_at is None:
            return None
        return format_datetime(self.modified_at, usegmt=True)


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The conditions of a request; none where all are None."""

    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None
    if_modified_since: datetime | None = None
    if_unmodified_since: datetime | None = None

    @classmethod
    def of(cls, headers: Headers) -> Preconditions:
        """Raises HttpError (400) of tags that are none; times that are none are passed over.

        All lines of a list count (RFC 9110, 5.3).
        """
        return cls(
            if_match=_tags(headers.getlist("if-match")),
            if_none_match=_tags(headers.getlist("if-none-match")),
            if_modified_since=_time(headers.get("if-modified-since")),
            if_unmodified_since=_time(headers.get("if-unmodified-since")),
        )

    @property
    def is_change_free(self) -> bool:
        """Whether there is no condition that a change would have to look at."""
        return (self.if_match, self.if_none_match, self.if_unmodified_since) == (None, None, None)

    @property
    def wants_absent(self) -> bool:
        """Whether there must be nothing: ``If-None-Match: *``."""
        return self.if_none_match == (ANY,)

    def outcome(self, present: Representation | None) -> Literal["go", "unchanged", "failed"]:
        """In the order of RFC 9110, 13.2.2. ``unchanged`` is what a read answers 304."""
        if self.if_match is not None:
            if present is None or not _has(self.if_match, present.etag, weakly=False):
                return "failed"
        elif self.if_unmodified_since is not None and (
            present is None or _later(present.modified_at, self.if_unmodified_since)
        ):
            return "failed"
        if self.if_none_match is not None:
            is_there = present is not None and _has(self.if_none_match, present.etag, weakly=True)
            return "unchanged" if is_there else "go"
        if self.if_modified_since is not None and present is not None and present.modified_at:
            return "go" if _later(present.modified_at, self.if_modified_since) else "unchanged"
        return "go"

    def check_change(self, present: Representation | None) -> None:
        """Raises HttpError (412) unless what is there may be changed."""
        since = Preconditions(self.if_match, self.if_none_match, None, self.if_unmodified_since)
        if since.outcome(present) != "go":
            raise precondition_failed()


def precondition_failed(detail: str = "a condition of the request does not hold") -> HttpError:
    """The answer 412."""
    return HttpError(412, "conflict", detail)


def range_applies(headers: Headers, present: Representation) -> bool:
    """Whether ``If-Range`` lets a range be served, of what the client has the rest of.

    A time does not: there may be two versions of one second, so it is no strong validator.
    """
    asked = headers.get("if-range")
    return asked is None or asked.strip() == present.etag


def _has(tags: tuple[str, ...], etag: str, *, weakly: bool) -> bool:
    """Whether ``etag`` is among ``tags``, by strong comparison or ``weakly``."""
    if tags == (ANY,):
        return True
    return any((tag.removeprefix("W/") if weakly else tag) == etag for tag in tags)


def _later(at: datetime | None, than: datetime) -> bool:
    return at is None or at.replace(microsecond=0) > than


def _tags(lines: list[str]) -> tuple[str, ...] | None:
    if not lines:
        return None
    header = ", ".join(lines)
    if header.strip() == ANY:
        return (ANY,)
    tags: list[str] = []
    at = 0
    while at < len(header):
        found = _TAG.match(header, at)
        if found is None:
            raise HttpError(400, "invalid", "entity tags are quoted, with commas between them")
        tags.append((found[1] or "") + found[2])
        at = found.end()
    return tuple(tags)


def _time(header: str | None) -> datetime | None:
    if header is None:
        return None
    try:
        at = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return at if at.tzinfo is not None else None
