"""Any sequence of operations leaves a blob store looking like a dict.

hypothesis makes up the sequence and shortens one that fails. A store joins in by a subclass of
`BlobStoreModel` that opens it, and one test that calls `run_model`.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace
from tests.contracts.blob_store import (
    ATTRIBUTES,
    FAR_AHEAD,
    PART_BYTES,
    fresh_staging,
    put_staged,
    read,
    said,
    some_bytes,
    staged_bytes,
    wherever,
    write_parts,
)

from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import CorruptError, NotFoundError
from holdfast.stores.ports import BlobInfo, Fetched

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from holdfast.stores.ports import Attributes, BlobStore, StagedBlob

# Few and close to the edges, so that sequences meet the same blob again.
CONTENTS = tuple(
    some_bytes(size, seed=size) for size in (0, 1, 1023, 1024, 1025, 2048, 2500, 5 * 1024)
)


@dataclass(frozen=True)
class Upload:
    """Parts that were written and are no blob yet."""

    staging: str
    staged: StagedBlob
    data: bytes


class BlobStoreModel(RuleBasedStateMachine):
    """The rules. A subclass opens a fresh, empty store and closes it."""

    uploads: Bundle[Upload] = Bundle("uploads")

    async def open_store(self) -> BlobStore:
        """A fresh store. Runs on the loop that the whole sequence runs on."""
        raise NotImplementedError

    async def close_store(self, store: BlobStore) -> None:
        """Close it, and remove what it kept."""
        await store.aclose()

    async def lose(self, digest: Digest) -> None:
        """Remove the stored bytes of a blob behind the store's back."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[Digest] = set()
        self.operations = itertools.count()
        self.runner = asyncio.Runner()
        self.store = self.run(self.open_store())
        self.model: dict[Digest, tuple[bytes, BlobInfo]] = {}

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``."""
        return self.runner.run(work)

    def teardown(self) -> None:
        """Close the store and its loop."""
        try:
            self.run(self.close_store(self.store))
        finally:
            self.runner.close()

    def stored(self, data: bytes, info: BlobInfo, *, created: bool, pins: bool = True) -> None:
        """Note a put and check its answer.

        It creates what is not there, heals what is lost, and ``pins`` the rest, which is there for
        all then.
        """
        digest = digest_of(data)
        assert created == (digest not in self.model or digest in self.lost)
        self.lost.discard(digest)
        if created:
            self.model[digest] = (data, info)
        else:
            known = self.model[digest][1]
            counted_on = replace(known, pinned=known.pinned or pins, deleted=False)
            self.model[digest] = (data, counted_on)
        assert info == self.model[digest][1]

    def is_there_for_all(self, digest: Digest) -> bool:
        """Whether who asks by the digest is told that it is there."""
        return digest in self.model and not self.model[digest][1].deleted

    @rule(data=st.sampled_from(CONTENTS), pins=st.booleans())
    def put(self, data: bytes, pins: bool) -> None:
        attributes = replace(ATTRIBUTES, pinned=pins)
        stored = self.run(self.store.put(digest_of(data), data, attributes))
        self.stored(data, stored.info, created=stored.created, pins=pins)

    @rule(data=st.sampled_from(CONTENTS))
    def put_again_under_an_operation(self, data: bytes) -> None:
        attributes: Attributes = replace(ATTRIBUTES, op_id=f"op-{next(self.operations)}")
        first = self.run(self.store.put(digest_of(data), data, attributes))
        second = self.run(self.store.put(digest_of(data), data, attributes))
        assert first == second or not first.created
        if digest_of(data) in self.lost:
            assert first.created
            self.lost.discard(digest_of(data))
            del self.model[digest_of(data)]
        elif not first.created:
            self.stored(data, first.info, created=False)
        self.model.setdefault(digest_of(data), (data, first.info))
        assert self.model[digest_of(data)][1] == first.info == second.info

    @rule(data=st.sampled_from(CONTENTS))
    def put_in_parts(self, data: bytes) -> None:
        stored = self.run(put_staged(self.store, data))
        self.stored(data, stored.info, created=stored.created)

    @rule(target=uploads, data=st.sampled_from(CONTENTS))
    def begin_upload(self, data: bytes) -> Upload:
        staging = fresh_staging()
        staged = self.store.stage(staging, PART_BYTES)
        self.run(write_parts(staged, data))
        return Upload(staging, staged, data)

    @rule(upload=uploads)
    def read_parts_back(self, upload: Upload) -> None:
        parts = self.run(staged_bytes(self.store, upload.staging))
        assert b"".join(parts) == upload.data

    @rule(upload=consumes(uploads))
    def commit_upload(self, upload: Upload) -> None:
        data = upload.data
        stored = self.run(upload.staged.commit(digest_of(data), len(data), ATTRIBUTES))
        self.stored(data, stored.info, created=stored.created)

    @rule(upload=consumes(uploads))
    def discard_upload(self, upload: Upload) -> None:
        self.run(self.store.discard_staged(upload.staging))
        assert self.run(staged_bytes(self.store, upload.staging)) == []

    @rule(data=st.sampled_from(CONTENTS))
    def get(self, data: bytes) -> None:
        digest = digest_of(data)
        if digest not in self.model:
            with pytest.raises(NotFoundError):
                self.run(self.store.stat(digest))
            with pytest.raises(NotFoundError):
                self.run(self.store.fetch(digest, len(data)))
            return
        if digest in self.lost:
            with pytest.raises((NotFoundError, CorruptError)):
                self.run(self.store.get(self.run(self.store.stat(digest))))
            return
        info = self.run(self.store.stat(digest))
        assert info == self.model[digest][1]
        assert self.run(self.store.get(info)) == data
        assert self.run(self.store.fetch(digest, len(data))) == Fetched(info=info, data=data)

    @rule(data=st.sampled_from(CONTENTS), bounds=st.tuples(st.integers(0), st.integers(0)))
    def read_range(self, data: bytes, bounds: tuple[int, int]) -> None:
        if digest_of(data) in self.model and digest_of(data) not in self.lost:
            start, stop = sorted(bound % (len(data) + 1) for bound in bounds)
            info = self.model[digest_of(data)][1]
            assert self.run(read(self.store, info, start, stop)) == data[start:stop]

    @rule(data=st.sampled_from(CONTENTS))
    def delete(self, data: bytes) -> None:
        digest = digest_of(data)
        deleted = self.run(self.store.delete(digest))
        assert deleted == self.is_there_for_all(digest) or digest in self.lost
        self.model.pop(digest, None)
        self.lost.discard(digest)

    @rule(data=st.sampled_from(CONTENTS))
    def delete_what_is_kept(self, data: bytes) -> None:
        digest = digest_of(data)
        if digest not in self.lost:
            known = self.model.get(digest)
            deleted = self.run(self.store.delete(digest, kept=said(True)))
            assert deleted == self.is_there_for_all(digest)
            if known is not None:
                info = self.run(self.store.stat(digest, sure=True))
                assert wherever(info) == wherever(replace(known[1], pinned=False, deleted=True))
                self.model[digest] = (data, info)

    @rule(data=st.sampled_from(CONTENTS[1:]))
    def lose_bytes(self, data: bytes) -> None:
        digest = digest_of(data)
        if digest in self.model and digest not in self.lost:
            self.run(self.lose(digest))
            self.lost.add(digest)

    @rule(data=st.sampled_from(CONTENTS))
    def report_damage(self, data: bytes) -> None:
        digest = digest_of(data)
        if digest in self.lost:
            self.run(self.store.report_damage(self.model[digest][1]))
            assert self.run(self.store.missing([digest])) == [digest]

    @rule(data=st.sampled_from(CONTENTS))
    def touch(self, data: bytes) -> None:
        digest = digest_of(data)
        touched = self.run(self.store.touch(digest, unless_seen_since=FAR_AHEAD))
        assert touched == (digest in self.model and digest not in self.lost)
        if touched:
            self.model[digest] = (data, replace(self.model[digest][1], deleted=False))

    @rule(limit=st.integers(1, 4), prefix=st.sampled_from(("", *"0123456789abcdef")))
    def list_pages(self, limit: int, prefix: str) -> None:
        found: list[Digest] = []
        cursor = None
        while True:
            page = self.run(self.store.list_blobs(prefix=prefix, cursor=cursor, limit=limit))
            assert len(page.entries) <= limit
            found += [entry.digest for entry in page.entries if isinstance(entry, BlobInfo)]
            cursor = page.cursor
            if cursor is None:
                break
        found = [digest for digest in found if digest not in self.lost]
        there = self.model.keys() - self.lost
        assert sorted(found) == sorted(key for key in there if key.startswith(prefix))

    @invariant()
    def misses_exactly_what_the_dict_misses(self) -> None:
        # Of what was lost nobody may know yet.
        digests = [digest for digest in map(digest_of, CONTENTS) if digest not in self.lost]
        missing = self.run(self.store.missing(digests))
        assert missing == [digest for digest in digests if not self.is_there_for_all(digest)]


def run_model(
    model: type[BlobStoreModel], *, max_examples: int, steps_per_example: int = 20
) -> None:
    """Run that many sequences of at most that many operations. Call it from a plain test."""
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=steps_per_example,
            deadline=None,  # disks and servers are as slow as they are
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
