"""Filling a directory with what is selected of a snapshot, several pages at a time.

The pages go to a few threads: first directories and files, then (in one thread, when all files are
there) hard links, then symlinks and the metadata of directories. Held are a few pages, and
for each thread a frame: but for the numbers of some pages nothing grows with the tree.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Final

from holdfast.archive.ports import Cancelled, OnProgress, Progress, Stop
from holdfast.archive.restore.files import FileWriter
from holdfast.archive.restore.frames import needed_packs
from holdfast.archive.restore.links import Finisher, LinkMaker
from holdfast.form.entries import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from holdfast.archive.restore.options import RestoreLimits
    from holdfast.archive.restore.place import Target
    from holdfast.form.manifest import Page

ANNOUNCED_AHEAD: Final = 4
"""Packs of a page that are asked for before a thread has taken it."""

WAIT_SECONDS: Final = 0.2
"""Seconds between reports of progress and asking ``stop`` while all threads are busy."""


@dataclass(frozen=True, slots=True)
class _Job:
    number: int
    page: Page
    indices: Sequence[int]


class TreeRestore:
    """One restore into ``target``. Used once."""

    def __init__(
        self, target: Target, limits: RestoreLimits, progress: OnProgress, stop: Stop
    ) -> None:
        """``progress`` and ``stop`` are called by the thread that runs it."""
        self._snapshot = target.snapshot
        self._target = target
        self._limits = limits
        self._progress = progress
        self._asked_to_stop = stop
        self._halt = threading.Event()
        self._failures: list[BaseException] = []
        self._queue: Queue[_Job | None] = Queue(maxsize=target.threads)
        self._writers: list[FileWriter] = []

    @property
    def counts(self) -> tuple[int, int, int]:
        """Entries, files and bytes so far."""
        writers = self._writers
        return (
            sum([writer.entries for writer in writers]),
            sum([writer.files for writer in writers]),
            sum([writer.bytes for writer in writers]),
        )

    def run(self, pages: Sequence[int], finish_extra: Callable[[], None]) -> None:
        """Restore what is selected of ``pages``, ascending.

        ``finish_extra`` is called when all entries are there, before directories get their times.
        Raises Cancelled, CorruptError, TooLargeError, what ``failure_of`` and the store do.
        """
        with ThreadPoolExecutor(self._target.threads, "restore-ahead") as ahead:
            self._writers = [
                FileWriter(self._target, ahead, self._halt.is_set)
                for _ in range(self._target.threads)
            ]
            try:
                linked = self._write_files(pages)
                self._make_links(linked)
            finally:
                self._halt.set()
                for writer in self._writers:
                    writer.close()
        finish_extra()
        self._finish(pages)

    def _write_files(self, pages: Sequence[int]) -> list[int]:
        """Directories and files; the numbers of the pages that have hard links."""
        threads = [
            threading.Thread(target=self._work, args=(writer,), name="restore", daemon=True)
            for writer in self._writers
        ]
        for thread in threads:
            thread.start()
        linked = []
        try:
            for number in pages:
                self._snapshot.prefetch_page(number + 1)
                job = self._job(number)
                if Kind.HARDLINK in job.page.kinds:
                    linked.append(number)
                # So that a thread that begins a page finds its first packs there already.
                self._snapshot.prefetch(needed_packs(job.page, job.indices)[:ANNOUNCED_AHEAD])
                self._hand_over(job)
            for _ in threads:
                self._hand_over(None)
        except BaseException:
            self._halt.set()
            raise
        finally:
            for thread in threads:
                self._wait_for(thread)
        if self._failures:
            raise self._failures[0]
        return linked

    def _job(self, number: int) -> _Job:
        page = self._snapshot.page(number)
        self._limits.check_page(page)
        return _Job(number, page, self._target.selection.indices(page.paths))

    def _hand_over(self, job: _Job | None) -> None:
        while True:
            self._tell()
            try:
                self._queue.put(job, timeout=WAIT_SECONDS)
            except Full:
                continue
            return

    def _wait_for(self, thread: threading.Thread) -> None:
        while thread.is_alive():
            thread.join(WAIT_SECONDS)
            if not self._halt.is_set() and not self._asked_to_stop():
                self._progress(self._state("restore"))
            else:
                self._halt.set()

    def _work(self, writer: FileWriter) -> None:
        try:
            while not self._halt.is_set():
                try:
                    job = self._queue.get(timeout=WAIT_SECONDS)
                except Empty:
                    continue
                if job is None:
                    return
                writer.write_page(job.page, job.indices)
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits for this
            self._failures.append(error)
            self._halt.set()

    def _make_links(self, pages: Iterable[int]) -> None:
        maker = LinkMaker(self._target, self._writers[0], self._check_copy)
        try:
            for number in pages:
                self._tell()
                job = self._job(number)
                for index in job.indices:
                    if job.page.kinds[index] == Kind.HARDLINK:
                        maker.make(number, job.page, index)
        finally:
            maker.close()

    def _check_copy(self, size_bytes: int) -> None:
        """A hard link that becomes a file of its own counts like one."""
        entries, _, _ = self.counts
        total_bytes = sum([writer.data_bytes for writer in self._writers]) + size_bytes
        self._limits.check_totals(entries, total_bytes)
        self._limits.check_expansion(total_bytes, self._snapshot.root.stored_bytes)

    def _finish(self, pages: Iterable[int]) -> None:
        finisher = Finisher(self._target)
        try:
            for number in pages:
                self._tell("finish")
                job = self._job(number)
                finisher.page(number, job.page, job.indices)
            finisher.finish()
        finally:
            finisher.close()

    def _tell(self, phase: str = "restore") -> None:
        """Progress, unless it is over: by a failure, or because the caller says so."""
        if self._failures:
            raise self._failures[0]
        if self._asked_to_stop():
            raise Cancelled
        self._progress(self._state(phase))

    def _state(self, phase: str) -> Progress:
        entries, _, size_bytes = self.counts
        return Progress(phase=phase, entries=entries, bytes=size_bytes)
