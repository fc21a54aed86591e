"""Op-Ids of a log: known for two minutes, so many at the most."""

from __future__ import annotations

from typing import Final

import pytest

from holdfast.domain.hlc import ZERO
from holdfast.errors import ConflictError
from holdfast.repository.states.groups import GroupedOp, GroupHead
from holdfast.repository.states.op_ids import MAX_OP_IDS, REMEMBERED, AppendedRun, OpIds

LINEAGE: Final = ("l", 0, 0)
RUN: Final = AppendedRun(1, 1, ZERO, ZERO)
SECONDS: Final = REMEMBERED.total_seconds()


def test_an_op_id_of_a_group_is_known_with_what_it_has_appended() -> None:
    ids = OpIds()
    ops = (GroupedOp("a x", 0, 2), GroupedOp("b y", 2, 1))
    group = GroupHead(log="l", first=5, count=3, hlc=str(ZERO), ops=ops)

    ids.note_group(group, LINEAGE, 0)

    assert ids.find("a x") == AppendedRun(5, 2, ZERO, ZERO.advanced(1), LINEAGE)
    assert ids.find("b y") == AppendedRun(7, 1, ZERO.advanced(2), ZERO.advanced(2), LINEAGE)
    assert ids.find("c z") is None
    assert ids.find(None) is None
    with pytest.raises(ConflictError):
        ids.find("a z")


def test_an_op_id_is_known_for_two_minutes() -> None:
    ids = OpIds()
    ids.note("a x", RUN, 0)

    ids.note("b x", RUN, SECONDS - 1)
    assert ids.find("a x") == RUN
    ids.note("c x", RUN, SECONDS + 1)
    assert ids.find("a x") is None
    assert ids.find("b x") == RUN


def test_of_too_many_op_ids_the_oldest_are_forgotten() -> None:
    ids = OpIds()
    for n in range(MAX_OP_IDS + 1):
        ids.note(f"{n} x", RUN, 0)

    assert len(ids) == MAX_OP_IDS
    assert ids.find("0 x") is None
    assert ids.find("1 x") == RUN
