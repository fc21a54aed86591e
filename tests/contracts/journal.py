"""The promises of every store of logs: one class of tests that each of them runs.

A subclass gives the fixtures ``store`` (fresh and empty), ``other`` (the same logs, as another
process has them open) and ``unreachable_store``, and the method ``append_damaged``.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from itertools import chain, count
from typing import TYPE_CHECKING, Final

import pytest

from holdfast.domain.blob_names import name_key
from holdfast.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    TooLargeError,
    UnavailableError,
)
from holdfast.stores import journal_parts
from holdfast.stores.journal_parts import MAX_ENTRY_BYTES
from holdfast.stores.journal_ports import MAX_MESSAGE_ID_CHARS, MAX_PAGE_ENTRIES

if TYPE_CHECKING:
    from holdfast.stores.journal_ports import JournalEntry, JournalStore

LOG: Final = "orders.eu"
RACERS: Final = 12
ids = count(1)


def new_id() -> str:
    """A message id that no other append has."""
    return f"m{next(ids)}"


async def append(store: JournalStore, value: bytes, log: str = LOG) -> int:
    """Add ``value`` at the end, of which nobody else writes."""
    last = await store.last(log)
    expected = 0 if last is None else last.sequence
    return await store.append(log, value, expected=expected, message_id=new_id())


async def fill(store: JournalStore, values: int, log: str = LOG) -> list[int]:
    """Append b"1", b"2", …; their sequences."""
    sequences = [0]
    for number in range(1, values + 1):
        sequences.append(
            await store.append(log, b"%d" % number, expected=sequences[-1], message_id=new_id())
        )
    return sequences[1:]


async def read_all(store: JournalStore, log: str = LOG, *, limit: int = 100) -> list[JournalEntry]:
    """The whole log, page by page."""
    entries: list[JournalEntry] = []
    while True:
        after = entries[-1].sequence if entries else 0
        page = await store.read(log, after, limit=limit, sure=True)
        entries += page.entries
        if page.is_end:
            return entries


async def values(store: JournalStore, log: str = LOG) -> list[bytes]:
    """The content of the log."""
    return [entry.value for entry in await read_all(store, log)]


class JournalStoreContract(ABC):
    """Subclass it as ``TestMyJournalStore``."""

    @abstractmethod
    async def append_damaged(self, store: JournalStore, log: str, expected: int) -> int:
        """Append an entry that is not what was to be stored; its sequence."""

    # --- appending

    @pytest.mark.parametrize("log", ["a", "u.0-_=Z", name_key("x" * 512), name_key("é" * 256)])
    @pytest.mark.parametrize("value", [b"", b"value", bytes(range(256)) * 1000])
    async def test_an_entry_reads_back_as_appended(
        self, store: JournalStore, log: str, value: bytes
    ) -> None:
        before = await store.now()
        sequence = await store.append(log, value, expected=0, message_id="first")

        [entry] = await read_all(store, log)

        assert (entry.sequence, entry.previous) == (sequence, 0)
        assert (entry.value, entry.message_id) == (value, "first")
        assert sequence > 0
        assert before <= entry.at <= await store.now()

    async def test_sequences_rise_and_each_entry_names_the_one_before(
        self, store: JournalStore
    ) -> None:
        sequences = await fill(store, 20)

        entries = await read_all(store)

        assert sequences == sorted(set(sequences)) == [entry.sequence for entry in entries]
        assert [entry.previous for entry in entries] == [0, *sequences[:-1]]
        assert [entry.value for entry in entries] == [b"%d" % n for n in range(1, 21)]

    async def test_an_append_behind_another_entry_than_the_last_is_a_conflict(
        self, store: JournalStore
    ) -> None:
        first, second = await fill(store, 2)

        for expected in (0, first, second + 1):
            with pytest.raises(ConflictError):
                await store.append(LOG, b"late", expected=expected, message_id=new_id())
        with pytest.raises(ConflictError):
            await store.append("empty", b"late", expected=second, message_id=new_id())

        assert await values(store) == [b"1", b"2"]
        assert await store.last("empty") is None

    async def test_an_append_that_is_sent_again_is_answered_by_its_entry(
        self, store: JournalStore, other: JournalStore
    ) -> None:
        first = await store.append(LOG, b"1", expected=0, message_id="one")
        again = await other.append(LOG, b"1", expected=0, message_id="one")
        second = await store.append(LOG, b"2", expected=first, message_id="two")

        late = [
            await one.append(LOG, value, expected=expected, message_id=message_id)
            for one in (store, other)
            for value, expected, message_id in ((b"1", 0, "one"), (b"2", first, "two"))
        ]

        assert again == first
        assert late == [first, second] * 2
        assert await values(store) == [b"1", b"2"]

    async def test_of_racing_appends_one_is_first_and_the_others_are_told(
        self, store: JournalStore, other: JournalStore
    ) -> None:
        [first] = await fill(store, 1)
        racing = (
            (store, other)[n % 2].append(LOG, b"%d" % n, expected=first, message_id=new_id())
            for n in range(RACERS)
        )

        outcomes = await asyncio.gather(*racing, return_exceptions=True)

        won = [outcome for outcome in outcomes if isinstance(outcome, int)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
        assert (len(won), len(lost)) == (1, RACERS - 1)
        last = await store.last(LOG)
        assert last is not None
        assert last.sequence == won[0]

    async def test_logs_do_not_mind_each_other(
        self, store: JournalStore, other: JournalStore
    ) -> None:
        logs = ["a", "a.b", "a.b.c", "b"]

        await asyncio.gather(*(fill((store, other)[n % 2], 10, log) for n, log in enumerate(logs)))

        for log in logs:
            assert await values(store, log) == [b"%d" % n for n in range(1, 11)]

    @pytest.mark.parametrize("log", ["", ".", "a..b", "a.*", "a.>", "a b", "é", "x" * 2049])
    async def test_what_is_no_name_of_a_log_is_invalid(self, store: JournalStore, log: str) -> None:
        with pytest.raises(InvalidError):
            await store.append(log, b"", expected=0, message_id=new_id())
        for asked in (
            store.last(log),
            store.read(log, 0),
            store.first_from(log, 1),
            store.trim(log, 1),
            store.remove(log, 1),
        ):
            with pytest.raises(InvalidError):
                await asked

    async def test_what_cannot_be_appended_or_read_is_refused(self, store: JournalStore) -> None:
        for message_id in ("", "é", "a b", "a\n", "x" * (MAX_MESSAGE_ID_CHARS + 1)):
            with pytest.raises(InvalidError):
                await store.append(LOG, b"", expected=0, message_id=message_id)
        with pytest.raises(InvalidError):
            await store.append(LOG, b"", expected=-1, message_id=new_id())
        for limit, max_bytes in ((0, 1), (MAX_PAGE_ENTRIES + 1, 1), (1, 0)):
            with pytest.raises(InvalidError):
                await store.read(LOG, 0, limit=limit, max_bytes=max_bytes)
        with pytest.raises(TooLargeError):
            await store.append(LOG, bytes(MAX_ENTRY_BYTES + 1), expected=0, message_id=new_id())

    # --- reading

    async def test_a_log_that_never_was_is_empty(self, store: JournalStore) -> None:
        await fill(store, 1, "a.b")

        for log in ("a", "a.b.c", "b"):
            assert await store.last(log) is None
            assert await store.first_from(log, 1) is None
            for sure in (False, True):
                page = await store.read(log, 0, sure=sure)
                assert (list(page.entries), page.is_end) == ([], True)

    @pytest.mark.parametrize("sure", [False, True])
    async def test_pages_join_without_gaps_and_end_at_the_end(
        self, store: JournalStore, *, sure: bool
    ) -> None:
        await fill(store, 3, "before")
        sequences = await fill(store, 10)
        await fill(store, 3, "behind")

        for limit in (1, 3, 10, 11):
            entries: list[JournalEntry] = []
            pages = 0
            while True:
                after = entries[-1].sequence if entries else 0
                page = await store.read(LOG, after, limit=limit, sure=sure)
                entries += page.entries
                pages += 1
                assert len(page.entries) <= limit
                if page.is_end:
                    break
            assert [entry.sequence for entry in entries] == sequences
            assert pages <= 10 // limit + 1

    async def test_a_page_has_so_many_bytes_or_one_entry(self, store: JournalStore) -> None:
        expected = 0
        for size in (100, 100, 5000, 100):
            expected = await store.append(LOG, bytes(size), expected=expected, message_id=new_id())

        sizes, after = [], 0
        while True:
            page = await store.read(LOG, after, max_bytes=250)
            sizes.append([len(entry.value) for entry in page.entries])
            after = page.entries[-1].sequence
            if page.is_end:
                break

        assert list(chain.from_iterable(sizes)) == [100, 100, 5000, 100]
        assert all(len(page) == 1 or sum(page) <= 250 for page in sizes)
        assert after == expected

    async def test_entries_are_found_by_sequence_and_by_time(self, store: JournalStore) -> None:
        sequences = await fill(store, 9)
        entries = await read_all(store)

        for place, sequence in enumerate(sequences):
            assert await store.first_from(LOG, sequence) == entries[place]
            following = await store.first_from(LOG, sequence + 1)
            assert following == (entries[place + 1] if place < 8 else None)
            since = await store.first_since(LOG, entries[place].at)
            assert since is not None
            assert since.at == entries[place].at
            assert since.sequence <= sequence
        assert await store.first_from(LOG, 0) == entries[0]
        assert await store.last(LOG) == entries[-1]
        assert await store.first_since("empty", entries[0].at) is None

    # --- trimming and removing

    async def test_what_is_trimmed_is_gone_and_the_rest_stays(
        self, store: JournalStore, other: JournalStore
    ) -> None:
        sequences = await fill(store, 10)
        await fill(store, 2, "other")

        await store.trim(LOG, sequences[3])
        await other.trim(LOG, sequences[2])

        assert [entry.sequence for entry in await read_all(other)] == sequences[4:]
        assert (await read_all(store))[0].previous == sequences[3]
        assert await store.first_from(LOG, 1) == (await read_all(store))[0]
        assert await values(store, "other") == [b"1", b"2"]

    async def test_the_last_entry_is_never_trimmed_so_that_the_log_goes_on_behind_it(
        self, store: JournalStore
    ) -> None:
        sequences = await fill(store, 3)

        await store.trim(LOG, sequences[-1] + 1000)
        await store.trim("never", 1000)

        assert [entry.sequence for entry in await read_all(store)] == sequences[2:]
        assert await append(store, b"4") > sequences[-1]

    async def test_trimming_up_to_nothing_removes_nothing(self, store: JournalStore) -> None:
        sequences = await fill(store, 3)

        await store.trim(LOG, 0)
        await store.remove(LOG, 0)
        await store.trim(LOG, sequences[0] - 1)

        assert await values(store) == [b"1", b"2", b"3"]

    async def test_a_log_that_was_removed_begins_anew_at_sequences_that_were_never_used(
        self, store: JournalStore
    ) -> None:
        sequences = await fill(store, 3)

        await store.remove(LOG, sequences[-1])
        assert await store.last(LOG) is None
        first = await store.append(LOG, b"new", expected=0, message_id=new_id())
        await store.remove(LOG, sequences[-1])
        await store.trim(LOG, sequences[-1])

        assert first > sequences[-1]
        assert await values(store) == [b"new"]

    async def test_a_reader_that_a_trim_overtakes_sees_that_entries_are_missing(
        self, store: JournalStore
    ) -> None:
        sequences = await fill(store, 6)
        page = await store.read(LOG, 0, limit=2)
        await store.trim(LOG, sequences[3])

        following = await store.read(LOG, page.entries[-1].sequence, sure=True)

        assert following.entries[0].previous != page.entries[-1].sequence
        assert [entry.value for entry in following.entries] == [b"5", b"6"]

    # --- damage

    async def test_a_damaged_entry_is_corrupt_and_hides_no_other(self, store: JournalStore) -> None:
        first, second = await fill(store, 2)
        damaged = await self.append_damaged(store, LOG, second)
        await store.append(LOG, b"4", expected=damaged, message_id=new_id(), behind_damage=True)
        await append(store, b"5")

        page = await store.read(LOG, 0)

        assert [entry.sequence for entry in page.entries] == [first, second]
        assert not page.is_end
        for sure in (False, True):
            with pytest.raises(CorruptError, match=str(damaged)):
                await store.read(LOG, second, sure=sure)
        with pytest.raises(CorruptError, match=str(damaged)):
            await store.first_from(LOG, second + 1)
        behind = await store.read(LOG, damaged, sure=True)
        assert [entry.value for entry in behind.entries] == [b"4", b"5"]

    async def test_a_damaged_last_entry_is_corrupt_and_can_be_trimmed_once_it_is_not_the_last(
        self, store: JournalStore
    ) -> None:
        [first] = await fill(store, 1)
        damaged = await self.append_damaged(store, LOG, first)

        with pytest.raises(CorruptError, match=str(damaged)):
            await store.last(LOG)
        following = await store.append(
            LOG, b"3", expected=damaged, message_id=new_id(), behind_damage=True
        )
        await store.trim(LOG, damaged)

        assert [entry.sequence for entry in await read_all(store)] == [following]

    # --- following

    async def test_whoever_follows_is_told_of_what_others_append(
        self, store: JournalStore, other: JournalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal_parts, "LOOK_SECONDS", 3600)
        seen: list[bytes] = []
        caught_up = asyncio.Event()

        async def follow() -> None:
            after = 0
            async with store.follow(LOG) as watched:
                while len(seen) < 20:
                    page = await store.read(LOG, after)
                    seen.extend(entry.value for entry in page.entries)
                    after = page.entries[-1].sequence if page.entries else after
                    if page.is_end and len(seen) < 20:
                        caught_up.set()
                        await watched.wait(after)

        following = asyncio.create_task(follow())
        await caught_up.wait()
        for number in range(1, 21):
            await append((store, other)[number % 2], b"%d" % number)
        await asyncio.wait_for(following, 30)

        assert seen == [b"%d" % n for n in range(1, 21)]

    async def test_what_was_told_before_is_not_waited_for(
        self, store: JournalStore, other: JournalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal_parts, "LOOK_SECONDS", 3600)

        async with store.follow(LOG) as watched:
            first = await append(other, b"1")
            await asyncio.wait_for(watched.wait(0), 30)
            await append(store, b"2")

            await asyncio.wait_for(watched.wait(first), 30)
            await asyncio.wait_for(watched.wait(0), 30)

    async def test_a_log_of_which_nobody_tells_is_to_be_read_after_a_while(
        self, store: JournalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal_parts, "LOOK_SECONDS", 0.01)

        async with store.follow("silent") as watched:
            await asyncio.wait_for(watched.wait(0), 30)

    # --- being there

    async def test_a_store_that_cannot_be_reached_is_unavailable_not_empty(
        self, unreachable_store: JournalStore
    ) -> None:
        with pytest.raises(UnavailableError):
            await unreachable_store.append(LOG, b"", expected=0, message_id=new_id())
        for asked in (
            unreachable_store.last(LOG),
            unreachable_store.read(LOG, 0),
            unreachable_store.read(LOG, 0, sure=True),
            unreachable_store.first_from(LOG, 1),
            unreachable_store.trim(LOG, 1),
            unreachable_store.remove(LOG, 1),
            unreachable_store.check(),
        ):
            with pytest.raises(UnavailableError):
                await asked

    async def test_a_store_that_is_there_passes_its_check_and_has_room(
        self, store: JournalStore
    ) -> None:
        await store.check()

        assert not await store.has_little_room()
