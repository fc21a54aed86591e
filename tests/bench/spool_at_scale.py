"""A collection of very many packs and frames, or blobs: time, memory and disk.

    python -m tests.bench.spool_at_scale [--packs 1000000] [--frames 50] [--share 20]
    python -m tests.bench.spool_at_scale --blobs 1000000 --packs 0

Packs are listed, then each is said to be needed in so many frames, none next to another, by pages
of twenty packs; then all are gone through. Blobs, which are listed with them, are needed whole. A
tenth of the packs and blobs is not needed. The database has a twentieth (``--share``) of the memory
that a worker gives it. Everything is in a temporary directory.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import sys
import time
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING, Final

from holdfast.domain.collection import Need, left_of
from holdfast.domain.digest import Digest
from holdfast.domain.limits import KIB, MIB
from holdfast.repository.collector.spool import Spool
from holdfast.repository.scratch import CACHE_KIB
from holdfast.stores.ports import SurveyedBlob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.domain.kept import Ranges

PACK_BYTES: Final = 800 * KIB
PAGE_PACKS: Final = 20
_LISTED_AT_ONCE: Final = 1000
_UNNEEDED_EVERY: Final = 10
_SEEN_AT: Final = datetime(2026, 11, 29, tzinfo=UTC)


def digest(number: int) -> Digest:
    """Of a pack."""
    return Digest(hashlib.sha256(number.to_bytes(8)).hexdigest())


def packs(count: int) -> Iterator[SurveyedBlob]:
    """As a survey meets them."""
    for number in range(count):
        yield SurveyedBlob(
            digest=digest(number),
            generation=f"{number:022}",
            size=PACK_BYTES,
            pinned=False,
            seen_at=_SEEN_AT,
            mark=str(number),
        )


def frames(count: int) -> Ranges:
    """So many of one pack, every second one."""
    step = PACK_BYTES // count
    return tuple((start, start + step // 2) for start in range(0, step * count, step))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--packs", type=int, default=1_000_000)
    parser.add_argument("--blobs", type=int, default=0)
    parser.add_argument("--frames", type=int, default=50, help="needed of each pack")
    parser.add_argument("--share", type=int, default=20, help="of the memory: one in so many")
    options = parser.parse_args()
    began = time.perf_counter()
    times: list[tuple[str, float]] = []

    def note(what: str) -> None:
        times.append((what, time.perf_counter() - began))

    spool = Spool(cache_kib=CACHE_KIB // options.share)
    for several in batched(packs(options.packs + options.blobs), _LISTED_AT_ONCE):
        spool.add(several)
        spool.name([one.generation for one in several], [one.digest for one in several])
    note("listed")
    for some in batched(range(options.packs, options.packs + options.blobs), _LISTED_AT_ONCE):
        spool.need([Need(digest(number)) for number in some if number % _UNNEEDED_EVERY])
    order = list(range(options.packs))
    random.Random(1).shuffle(order)  # noqa: S311  (test data, not secrets)
    needed = frames(options.frames)
    for page in batched(order, PAGE_PACKS):
        spool.need([Need(digest(number), needed) for number in page if number % _UNNEEDED_EVERY])
    note("marked")
    spool.settle()
    note("sorted")
    repacked = removed = after = 0
    while candidates := spool.candidates(after, 16):
        after = candidates[-1].number
        for one in candidates:
            kept = None if one.needed is None else left_of(one.needed, one.blob.size)
            repacked += bool(kept)
            removed += kept == ()
    note("gone through")
    spool.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    last = 0.0
    for what, at in times:
        sys.stdout.write(f"{what}: {at - last:.1f} s\n")
        last = at
    total = options.packs * options.frames
    sys.stdout.write(
        f"{options.packs} packs, {total} frames, {options.blobs} blobs: {repacked} to be"
        f" repacked, {removed} to go;"
        f" peak {peak / MIB:.0f} MiB with a cache of {CACHE_KIB // options.share} KiB\n"
    )


if __name__ == "__main__":
    main()
