"""A cache bounded in bytes, for threads that read the same snapshot.

Loading is single-flight: threads that want one pack at the same time fetch it once. A restore with
several threads would otherwise fetch every pack several times, for its frames lie side by side.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")


class ByteLru(Generic[K, V]):
    """Values by key, the least recently used forgotten first, beyond ``limit_bytes``.

    ``weigh`` says what a value counts for. A value heavier than the limit is returned, not kept.
    Thread-safe.
    """

    def __init__(self, limit_bytes: int, weigh: Callable[[V], int]) -> None:
        self._limit_bytes = limit_bytes
        self._weigh = weigh
        self._held_bytes = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._loading: dict[K, Future[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: K, load: Callable[[], V]) -> V:
        """The value of ``key``, from ``load`` if it is not held.

        An error of ``load`` reaches every thread that waited for it, and is not remembered.
        """
        mine: Future[V] | None = None
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            loading = self._loading.get(key)
            if loading is None:
                loading = mine = self._loading[key] = Future()
        if mine is not None:
            self._load(key, load, mine)
        return loading.result()

    def _load(self, key: K, load: Callable[[], V], result: Future[V]) -> None:
        try:
            value = load()
        except BaseException as error:
            with self._lock:
                del self._loading[key]
            result.set_exception(error)
            raise
        with self._lock:
            del self._loading[key]
            if key not in self._values:  # what was put meanwhile is newer
                self._keep(key, value)
        result.set_result(value)

    def _keep(self, key: K, value: V) -> None:
        weight = self._weigh(value)
        if weight > self._limit_bytes:
            return
        self._values[key] = value
        self._held_bytes += weight
        while self._held_bytes > self._limit_bytes:
            _, oldest = self._values.popitem(last=False)
            self._held_bytes -= self._weigh(oldest)

    def put(self, key: K, value: V) -> None:
        """Hold ``value`` from now on, also where another one is held or being loaded."""
        with self._lock:
            if key in self._values:
                self._held_bytes -= self._weigh(self._values.pop(key))
            self._keep(key, value)

    def __contains__(self, key: K) -> bool:
        """Whether the value is held now."""
        with self._lock:
            return key in self._values
