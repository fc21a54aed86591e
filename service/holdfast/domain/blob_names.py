"""Names of blobs: what may be one, how it becomes a record's key, and the conditions of a change.

A name is any text of 1 to 512 bytes of UTF-8. ``a//b``, ``/a``, ``.`` and the two spellings of an
accent are different names: nothing is normalised. A ``/`` parts it into tokens of its key, so that
a prefix of whole tokens is a prefix of keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal
from urllib.parse import quote, unquote_to_bytes

import msgspec

from holdfast.domain.names import check_labels, token, untoken
from holdfast.errors import InvalidError

Verb = Literal["create", "replace", "copy"]
"""Ways to give a name a blob: where it has none, has one, or either way."""

NameState = Literal["pending", "ok", "failure", "deleted"]

MAX_BLOB_NAME_BYTES: Final = 512
MAX_LABELS_BYTES: Final = 8 * 1024
"""Of the labels of one name, so that its record fits a message with all that it keeps."""

_EMPTY: Final = "="
"""The token of an empty part: no other has a ``=`` without two digits after it."""

_VERSION: Final = re.compile(r"=v([1-9][0-9]{0,15})", re.ASCII)
_QUOTED: Final = re.compile(r"(?:[A-Za-z0-9._~/!'()*-]|%[0-9A-Fa-f]{2})*", re.ASCII)
"""Characters that encoders leave alone: JavaScript's, for one, does so with ! ' ( ) and *."""

_SAFE: Final = "/"
_WILDCARDS: Final = frozenset("*>")


def check_blob_name(name: str) -> str:
    """``name``, if it may name a blob. Raises InvalidError."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidError("a name is UTF-8") from error
    if not 1 <= size <= MAX_BLOB_NAME_BYTES:
        msg = f"a name has 1 to {MAX_BLOB_NAME_BYTES} bytes of UTF-8: this one has {size}"
        raise InvalidError(msg)
    return name


def check_state_name(name: str) -> str:
    """``name``, if it may name a state: as a blob, without wildcards. Raises InvalidError."""
    if not _WILDCARDS.isdisjoint(name):
        raise InvalidError("the name of a state has no * and no >")
    return check_blob_name(name)


def check_name_labels(labels: Mapping[str, str]) -> None:
    """Raises InvalidError unless ``labels`` may label a name: as those of snapshots, in 8 KiB."""
    check_labels(labels)
    if sum(len(key) + len(value.encode()) for key, value in labels.items()) > MAX_LABELS_BYTES:
        raise InvalidError(f"the labels of a name have at most {MAX_LABELS_BYTES} bytes together")


def name_key(name: str) -> str:
    """The checked ``name`` as tokens of a record's key."""
    return ".".join(token(part) or _EMPTY for part in name.split("/"))


def key_name(key: str) -> str:
    """The name whose tokens are ``key``. Raises InvalidError when there is none."""
    return "/".join("" if part == _EMPTY else untoken(part) for part in key.split("."))


def version_key(name: str, version: int) -> str:
    """Version ``version`` of the checked ``name`` as tokens of a record's key: as of no name."""
    return f"{name_key(name)}.=v{version}"


def split_version_key(key: str) -> tuple[str, int]:
    """Name and version of a ``version_key``. Raises InvalidError when it is none."""
    head, _, last = key.rpartition(".")
    found = _VERSION.fullmatch(last)
    if not head or found is None:
        raise InvalidError("the key is not that of a version")
    return key_name(head), int(found[1])


def quote_text(text: str) -> str:
    """``text`` as a header has it: percent-encoded UTF-8, but for ``A-Z a-z 0-9 - . _ ~ /``."""
    try:
        return quote(text, safe=_SAFE)
    except UnicodeEncodeError as error:
        raise InvalidError("a name is UTF-8") from error


def unquote_text(text: str) -> str:
    """The text that a header has as ``text``. Raises InvalidError where it is raw, or not UTF-8."""
    if _QUOTED.fullmatch(text) is None:
        raise InvalidError("in a header a name or label is percent-encoded (RFC 3986)")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise InvalidError("a name is UTF-8") from error


def quote_labels(labels: Mapping[str, str]) -> str:
    """``labels`` as a header has them: ``key=value`` joined by ``&``, values percent-encoded."""
    return "&".join(f"{key}={quote_text(value)}" for key, value in labels.items())


def unquote_labels(text: str) -> dict[str, str]:
    """The labels that a header has as ``text``. Raises InvalidError."""
    labels: dict[str, str] = {}
    for pair in text.split("&") if text else ():
        key, equals, value = pair.partition("=")
        if not equals or key in labels:
            raise InvalidError("labels in a header are key=value joined by &, each key once")
        labels[key] = unquote_text(value)
    return labels


class Conditions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The conditions on a name for a change to be made; none by default.

    ``if_absent``: there is no blob of that name. ``if_version``, ``if_digest``: there is one, and
    it has these.
    """

    if_absent: bool = False
    if_version: int | None = None
    if_digest: str | None = None

    def check(self, *, may_be_absent: bool, may_be_present: bool) -> None:
        """Raises InvalidError of conditions that contradict each other, or the change."""
        needs_one = self.if_version is not None or self.if_digest is not None
        if self.if_absent and needs_one:
            msg = "if_absent cannot go with another condition"
        elif self.if_absent and not may_be_absent:
            msg = "if_absent contradicts a change of what is there"
        elif needs_one and not may_be_present:
            msg = "if_version and if_digest contradict a change that needs the name to be free"
        else:
            return
        raise InvalidError(msg)

    def failure(self, version: int, digest: str | None) -> str | None:
        """Why they do not hold of a name at ``version``, which has no blob without ``digest``."""
        if self.if_absent and digest is not None:
            return f"the condition failed: the name is taken, by version {version}"
        if digest is None:
            needs_one = self.if_version is not None or self.if_digest is not None
            return "the condition failed: there is no blob of that name" if needs_one else None
        if self.if_version is not None and self.if_version != version:
            return f"the condition failed: the name has version {version}"
        if self.if_digest is not None and self.if_digest != digest:
            return f"the condition failed: the name has the digest {digest}, at version {version}"
        return None


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's description of a named blob beside its bytes, and its conditions.

    ``expires_at`` is a time with its zone: from then on the name is not there any more.
    """

    type: str = "application/octet-stream"
    labels: Mapping[str, str] = {}
    expires_at: datetime | None = None
    conditions: Conditions = Conditions()

    def check(self, verb: Verb) -> None:
        """Raises InvalidError of labels that are none, conditions that contradict ``verb``."""
        check_name_labels(self.labels)
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise InvalidError("the time at which a name expires needs a time zone")
        self.conditions.check(may_be_absent=verb != "replace", may_be_present=verb != "create")
