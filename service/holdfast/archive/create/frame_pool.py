"""Hashing and compressing frames on all cores, and handing them on in the order they came in.

Both let go of the interpreter's lock, so threads are enough. Files of moderate size are read here,
too, each into its thread's own buffer: their bytes are hashed and compressed while the processor's
cache has them, and are never copied. Work under way is bounded; when it is too much, adding
waits for the oldest.

Why: docs/decisions.md, "Threads, and one that reads".
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from holdfast.archive.create.content import cut, read_stored
from holdfast.archive.create.shelf import Frame
from holdfast.domain.limits import KIB, MIB
from holdfast.form.frames import compress_frame, new_compressor
from holdfast.form.sparse import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.archive.ports import FileReader

SEGMENT_BYTES: Final = 512 * KIB
"""Work is handed to a thread in pieces of about so many raw bytes: each hand-over has a price."""

MAX_IN_FLIGHT_BYTES: Final = 16 * MIB
MAX_OPEN_FILES: Final = 64
MAX_THREADS: Final = 8

MAX_POOL_FILE_BYTES: Final = 4 * MIB
"""Files with more data are read by the adding thread, and cut there."""


class RawFrame:
    """A frame to be hashed, with its bytes, which must not change."""

    __slots__ = ("data_size", "frame", "raw")

    def __init__(self, raw: bytes | memoryview) -> None:
        self.raw = raw
        self.data_size = len(raw)
        self.frame = Frame(self.data_size)


@dataclass(slots=True, eq=False)
class FileData:
    """A file to be read, of at most MAX_POOL_FILE_BYTES of tar data, with what came of it.

    Afterwards ``frames`` hold its data, and ``settled`` is False if it changed since the walk.
    """

    reader: FileReader
    size: int
    segments: Sequence[tuple[int, int]] | None
    data_size: int
    frames: list[Frame] = field(default_factory=list)
    settled: bool = False
    is_closed: bool = False


type _Mark = Callable[[], None]
type _Item = RawFrame | FileData | _Mark


class FramePool:
    """Takes frames, files and marks in order; delivers frames and calls marks in that order.

    ``is_known`` tells of a digest whether that frame need not be compressed. ``deliver`` gets the
    frames; it is called by the adding thread, and so are marks.
    """

    def __init__(
        self,
        *,
        is_known: Callable[[bytes], bool],
        deliver: Callable[[Frame], None],
        threads: int = 0,
    ) -> None:
        """``threads``: 0 means one for each core that this process may use."""
        threads = threads or len(os.sched_getaffinity(0))
        self._is_known = is_known
        self._deliver = deliver
        self._executor = ThreadPoolExecutor(
            min(threads, MAX_THREADS), thread_name_prefix="holdfast-frames"
        )
        self._local = threading.local()
        self._segment: list[_Item] = []
        self._segment_bytes = self._segment_files = 0
        self._queue: deque[tuple[Future[None], list[_Item], int, int]] = deque()
        self._in_flight_bytes = self._open_files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, without finishing what is under way."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        pending = [item for _, segment, _, _ in self._queue for item in segment]
        for item in (*pending, *self._segment):
            if isinstance(item, FileData) and not item.is_closed:
                item.reader.close()

    def add(self, item: RawFrame | FileData) -> None:
        """Take a frame or a file."""
        self._segment.append(item)
        self._segment_bytes += item.data_size
        self._segment_files += isinstance(item, FileData)
        if self._segment_bytes >= SEGMENT_BYTES or self._segment_files >= MAX_OPEN_FILES // 4:
            self._submit()

    def add_mark(self, mark: _Mark) -> None:
        """Have ``mark`` called when everything before it was delivered, and nothing after it."""
        if self._segment or self._queue:
            self._segment.append(mark)
        else:
            mark()

    def finish(self) -> None:
        """Deliver all that was added."""
        self._submit()
        while self._queue:
            self._take()

    def _submit(self) -> None:
        segment, size, files = self._segment, self._segment_bytes, self._segment_files
        if not segment:
            return
        self._segment, self._segment_bytes, self._segment_files = [], 0, 0
        future = self._executor.submit(self._work, segment)
        self._queue.append((future, segment, size, files))
        self._in_flight_bytes += size
        self._open_files += files
        while self._queue and (
            self._in_flight_bytes > MAX_IN_FLIGHT_BYTES
            or self._open_files > MAX_OPEN_FILES
            or self._queue[0][0].done()
        ):
            self._take()

    def _take(self) -> None:
        future, segment, size, files = self._queue[0]
        future.result()
        self._queue.popleft()
        self._in_flight_bytes -= size
        self._open_files -= files
        for item in segment:
            if isinstance(item, RawFrame):
                self._deliver(item.frame)
            elif isinstance(item, FileData):
                for frame in item.frames:
                    self._deliver(frame)
            else:
                item()

    def _work(self, segment: list[_Item]) -> None:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:  # one for each thread: a compressor must never be shared
            worker = self._local.worker = _Worker(self._is_known)
        worker.work(segment)


class _Worker:
    """The tools of one thread of the pool."""

    def __init__(self, is_known: Callable[[bytes], bool]) -> None:
        self._is_known = is_known
        self._compressor = new_compressor()
        self._buffer = memoryview(bytearray(MAX_POOL_FILE_BYTES + BLOCK_BYTES))

    def work(self, segment: list[_Item]) -> None:
        for item in segment:
            if isinstance(item, RawFrame):
                self._compress(item.frame, item.raw)
                item.raw = b""
            elif isinstance(item, FileData):
                self._read(item)

    def _read(self, file: FileData) -> None:
        frames = []
        try:
            stored = read_stored(file.reader, self._buffer, file.size, file.segments)
            for raw in cut(stored, file.data_size):
                frame = Frame(len(raw))
                self._compress(frame, raw)
                frames.append(frame)
        finally:
            file.is_closed = True
            file.settled = file.reader.close()
        file.frames = frames

    def _compress(self, frame: Frame, raw: bytes | memoryview) -> None:
        frame.digest = hashlib.sha256(raw).digest()
        if not self._is_known(frame.digest):
            frame.stored = compress_frame(self._compressor, raw)
