"""Files with several names, when the name that has the content had to be left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.form.entries import Kind

if TYPE_CHECKING:
    from holdfast.archive.ports import Scanned


class Links:
    """Names that hold files' content."""

    def __init__(self) -> None:
        self._successors: dict[bytes, bytes | None] = {}

    def forget(self, scanned: Scanned) -> None:
        """``scanned`` is not in the archive."""
        if scanned.kind is Kind.FILE:
            self._successors[scanned.path] = None

    def resolve(self, scanned: Scanned) -> Scanned:
        """``scanned``, or if its FILE is not in the archive the entry in its stead.

        It is a HARDLINK to another name, or the FILE itself.
        """
        if not self._successors or not scanned.link:
            return scanned
        first = scanned.link
        while (successor := self._successors.get(first)) is not None:
            first = successor
        if first not in self._successors:
            if first == scanned.link:
                return scanned
            return msgspec.structs.replace(scanned, link=first)
        self._successors[first] = scanned.path
        return msgspec.structs.replace(scanned, kind=Kind.FILE, link=b"")
