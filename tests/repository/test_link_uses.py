"""A single-use link: of all first uses one, then ranges for an hour, whatever answers are lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from tests.repository.pool import Time

from holdfast.errors import ForbiddenError
from holdfast.repository.links.uses import RANGES_FOR, USE_TTL, LinkUses
from holdfast.stores.memory import MemoryRecordStore

NOW: Final = datetime(2026, 11, 29, 23, 15, 7, tzinfo=UTC)
LINK: Final = "0123456789abcdefghijAB"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def uses(time: Time) -> LinkUses:
    return LinkUses(MemoryRecordStore(time.sources.monotonic))


async def test_a_range_is_served_for_an_hour_from_the_first_use_on(uses: LinkUses) -> None:
    assert await uses.use(LINK, ranged=False, op_id="a", now=NOW) == NOW

    assert await uses.use(LINK, ranged=True, op_id="b", now=NOW + RANGES_FOR) == NOW
    late = NOW + RANGES_FOR + timedelta(seconds=1)
    with pytest.raises(ForbiddenError, match="was used"):
        await uses.use(LINK, ranged=True, op_id="c", now=late)


async def test_the_whole_is_served_once(uses: LinkUses) -> None:
    await uses.use(LINK, ranged=True, op_id="a", now=NOW)

    with pytest.raises(ForbiddenError, match="was used"):
        await uses.use(LINK, ranged=False, op_id="b", now=NOW)


async def test_the_first_use_that_is_repeated_is_still_the_first(uses: LinkUses) -> None:
    """Its answer was lost: the caller asks again, perhaps another worker."""
    await uses.use(LINK, ranged=False, op_id="a", now=NOW)

    later = NOW + timedelta(seconds=5)
    assert await uses.use(LINK, ranged=False, op_id="a", now=later) == NOW


async def test_the_use_of_a_link_is_remembered_for_longer_than_the_link_can_hold(
    time: Time, uses: LinkUses
) -> None:
    await uses.use(LINK, ranged=False, op_id="a", now=NOW)

    time.advance((USE_TTL - timedelta(minutes=1)).total_seconds())

    with pytest.raises(ForbiddenError):
        await uses.use(LINK, ranged=False, op_id="b", now=NOW + timedelta(days=7))
