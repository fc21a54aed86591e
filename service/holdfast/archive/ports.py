"""The needs of archiving: a place for packs, and a source of files.

The docstrings are the specification. Everything is synchronous and is called from threads; only
``bridge`` knows that a store is asynchronous.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from holdfast.form.entries import Kind
from holdfast.form.terms import EntryWarning

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import PartialBytes

type Pack = bytes | PartialBytes


class UncheckedPack(Protocol):
    """A pack as it came: whoever asked for it compares it, in a thread of its own."""

    def __len__(self) -> int:
        """Its bytes."""

    def checked(self) -> Pack:
        """The pack. Raises CorruptError where it does not match its digest."""


type FetchedPack = Pack | UncheckedPack


class PackStore(Protocol):
    """A map from digest to immutable packs (and roots) of at most one message each.

    Methods may be called from any thread, several at once. Beyond what they name they raise
    UnavailableError, OutcomeUnknownError and QuotaExceededError.
    """

    def get(self, digest: Digest) -> Pack:
        """A pack's stored bytes, checked against its digest. Raises NotFoundError, CorruptError.

        A collector may have left only those bytes of it that something needs, or had done so a
        while ago.
        """

    def get_latest(self, digest: Digest) -> Pack:
        """The same as it is at this moment: what `get` lacks somebody may have put again."""

    def prefetch(self, digests: Sequence[Digest]) -> None:
        """A hint: these will be asked for soon, in this order. Returns at once, never raises.

        The store takes as many of them as it has room for and ignores the rest.
        """

    def put(self, digest: Digest, data: bytes) -> None:
        """Store ``data``, whose digest is ``digest``; nothing happens when it is there.

        May return before it is durable; waits while too much is under way. Raises the failure of
        an earlier put, too: after that nothing more is stored.
        """

    def flush(self) -> None:
        """Return when everything that was put is durable, or raise why it is not."""


Warn = Callable[[EntryWarning], None]


class Scanned(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One entry as the walk saw it. Positional, because there may be a million of them.

    ``path`` is relative to the root and ``b""`` for the root itself. ``size`` is the apparent
    size of a FILE (of a HARDLINK: the file's) and 0 for others. ``allocated`` is what the file
    occupies: a sparse one less than ``size``. ``link`` is the path of the first member of a
    HARDLINK's group. A source without inodes or change times gives 0 (``ctime_ns`` 0 means: never
    take it for unchanged).
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int = 0
    inode: int = 0
    device: int = 0
    allocated: int = 0
    link: bytes = b""


class Described(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The rest about an entry, which the walk did not tell.

    ``size`` and ``mtime_ns`` are those at this moment: where they differ from the walk's, the
    entry goes into the archive as it is now. ``target`` is a symlink's text; ``segments`` the
    (offset, length) pieces of a sparse file, ascending, None for a plain one. ``content`` is the
    whole of a plain file of exactly ``size`` bytes, where it was small enough to be taken along.
    ``settled`` is False when the entry was warned of: the next snapshot looks at it again.
    """

    size: int
    mtime_ns: int
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    segments: tuple[tuple[int, int], ...] | None = None
    content: bytes | None = None
    settled: bool = True


class FileReader(Protocol):
    """An open regular file. Used by one thread at a time, not always the same; closed once."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` with its bytes. Zeros stand for what the file no longer has."""

    def close(self) -> bool:
        """Close it. False when its bytes may have changed since the walk, or there were fewer."""


class EntrySource(Protocol):
    """The source of an archive's entries. Used by one thread.

    Entries that cannot be read raise ForbiddenError or InvalidError with their path, or are
    warned of and left out, as the source was told. Vanished entries are only warned of.
    """

    def scan(self, warn: Warn) -> Generator[Scanned]:
        """Every entry once, in path order (``form.entries.order_key``), the root first.

        A HARDLINK comes after the FILE that it names. May be called again, for all anew.
        """

    def is_current(self) -> bool:
        """Whether what was scanned is still in its place, and nothing else instead.

        If so after all was read, then all of it was there. An exchanged tree may be taken down
        while it is walked, and a walk sees only that there is less of it.
        """

    def describe(self, scanned: Scanned, content_limit: int, warn: Warn) -> Described | None:
        """The rest about an entry of the scan, or None: leave it out, it was warned of.

        Never None for a directory, since entries below it may follow. A HARDLINK whose FILE was
        left out is described as a FILE itself.
        A plain file of at most ``content_limit`` bytes comes with its content. Called in path
        order, but not for all entries.
        """

    def open(self, scanned: Scanned, size: int, warn: Warn) -> FileReader | None:
        """The content of a FILE of which ``size`` bytes are expected, or None: leave it out."""

    def close(self) -> None:
        """Release what the source holds open. May be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of work. ``bytes`` are bytes of files dealt with, read or known already.

    ``new_bytes`` are those of them that the store did not have; ``stored_bytes`` what they take
    there, compressed. Counts never fall.
    """

    phase: str
    entries: int = 0
    bytes: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0


OnProgress = Callable[[Progress], None]
"""Called often, from the working thread: the receiver throttles."""

Stop = Callable[[], bool]
"""Whether to give up. Asked often; the work then raises ``Cancelled``."""


class Cancelled(Exception):  # noqa: N818 - not a failure: its asker knows why
    """The work was stopped because its caller asked for it. Nothing half-done is visible."""


def ignore_progress(_: Progress) -> None:
    """For callers who do not want to know."""


def never_stop() -> bool:
    """For callers who do not stop."""
    return False
