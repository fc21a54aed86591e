"""Warnings of an archive or a restore, collected: the first of them, and how many there were."""

from __future__ import annotations

import threading

from holdfast.form.terms import MAX_WARNINGS, EntryWarning


class Warnings:
    """Takes them from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: list[EntryWarning] = []
        self._told: set[str] = set()
        self._count = 0

    def __call__(self, warning: EntryWarning) -> None:
        """Take one."""
        with self._lock:
            self._count += 1
            if len(self._first) < MAX_WARNINGS:
                self._first.append(warning)

    def add(self, kind: str, path: bytes, detail: str) -> None:
        """Take one of these."""
        self(EntryWarning(kind=kind, path=path, detail=detail))

    def add_once(self, kind: str, path: bytes, detail: str) -> None:
        """The same, for what is then so of all entries: only the first of its kind is told."""
        with self._lock:
            is_told = kind in self._told
            self._told.add(kind)
        if not is_told:
            self.add(kind, path, detail)

    @property
    def first(self) -> tuple[EntryWarning, ...]:
        """At most MAX_WARNINGS of them, as they came."""
        return tuple(self._first)

    @property
    def count(self) -> int:
        """The count of them."""
        return self._count
