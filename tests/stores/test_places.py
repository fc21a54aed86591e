"""Remembered places: for how long, which of two words counts, and how many."""

from __future__ import annotations

import pytest
from tests.contracts.blob_store import CREATED_AT

from holdfast.domain.digest import digest_of
from holdfast.stores.jetstream.blobs import places as places_module
from holdfast.stores.jetstream.blobs.places import (
    REMEMBERED_SECONDS,
    ChunkPlace,
    LatelyStored,
    Places,
)
from holdfast.stores.ports import BlobInfo

PLACE = 7


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def info(data: bytes = b"data", *, chunks: int = 1, generation: str = "n") -> BlobInfo:
    return BlobInfo(
        digest=digest_of(data),
        size=len(data),
        chunks=chunks,
        part_size=1024,
        type="a/b",
        created_at=CREATED_AT,
        pinned=True,
        generation=generation,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def places(clock: Clock) -> Places:
    return Places(clock)


def test_a_place_is_known_for_some_seconds_from_when_it_was_asked_for(
    places: Places, clock: Clock
) -> None:
    places.remember(info(), PLACE, known_at=places.now())

    clock.seconds += REMEMBERED_SECONDS - 0.5
    assert places.find(info().digest) == ChunkPlace(info(), PLACE)
    clock.seconds += 0.5
    assert places.find(info().digest) is None


def test_using_a_place_does_not_keep_it_longer(places: Places, clock: Clock) -> None:
    places.remember(info(), PLACE, known_at=places.now())

    for _ in range(100):
        places.find(info().digest)
        clock.seconds += REMEMBERED_SECONDS / 100

    assert places.find(info().digest) is None


def test_what_was_asked_before_a_deletion_is_not_remembered_after_it(
    places: Places, clock: Clock
) -> None:
    asked = places.now()
    clock.seconds += 1
    places.forget(info().digest)
    clock.seconds += 1

    places.remember(info(), PLACE, known_at=asked)
    assert places.find(info().digest) is None
    places.remember(info(), PLACE, known_at=places.now())
    assert places.find(info().digest) == ChunkPlace(info(), PLACE)


def test_an_older_word_does_not_replace_a_newer_one(places: Places, clock: Clock) -> None:
    asked = places.now()
    clock.seconds += 1
    newer = info(generation="newer")
    places.remember(newer, PLACE, known_at=places.now())

    places.remember(info(), 3, known_at=asked)

    assert places.find(info().digest) == ChunkPlace(newer, PLACE)


@pytest.mark.parametrize("chunks", [0, 2])
def test_only_blobs_of_one_chunk_are_remembered(places: Places, chunks: int) -> None:
    places.remember(info(chunks=chunks), PLACE, known_at=places.now())

    assert places.find(info().digest) is None


def test_there_are_so_many_and_the_oldest_goes_first(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places_module, "MAX_REMEMBERED", 3)
    blobs = [info(b"%d" % number) for number in range(4)]

    for blob in blobs:
        places.remember(blob, PLACE, known_at=places.now())

    assert [places.find(blob.digest) is not None for blob in blobs] == [False, True, True, True]


def test_puts_look_first_once_blobs_are_found_often_and_no_more_when_they_are_not() -> None:
    lately = LatelyStored()
    looks = []

    for found in (True, True, *[False] * 8):
        lately.note(found=found)
        looks.append(lately.often)

    assert looks[:3] == [False, True, True]
    assert not looks[-1]
