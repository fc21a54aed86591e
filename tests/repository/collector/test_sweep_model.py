"""Every interleaving of writers, uploads, deleters and sweepers, with everybody's crash at each.

Time protects nothing: any copy without a record may be claimed at once, and every pause is
possible. In every state that can be reached "all crash now" is tried: the upload lapses, sweeps run
until nothing changes, and then whatever was acknowledged must be there, and no chunk that no record
names. Each rule is left out once, and that is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.repository.collector.explorer import Found, explore, run_alone
from tests.repository.collector.sweeping import (
    B,
    Bucket,
    Deleter,
    Rules,
    Successor,
    Sweeper,
    Toucher,
    Uploader,
    UploadLapse,
    Writer,
    complaint,
)

from holdfast.repository.uploads.record import LIVE, at

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT: Final = 2_000_000

SCENARIOS: Final[dict[str, Callable[[Rules], list[Any]]]] = {
    "a writer, who counts on it, a sweeper": lambda r: [
        Writer(r, "w"),
        Toucher(r),
        Sweeper(r, "s"),
    ],
    "two writers, a sweeper": lambda r: [Writer(r, "w"), Writer(r, "v"), Sweeper(r, "s")],
    "a writer of two chunks, two sweepers": lambda r: [
        Writer(r, "w", chunks=2),
        Sweeper(r, "s"),
        Sweeper(r, "t", takes_over=True),
    ],
    "a writer, who counts on it, two sweepers": lambda r: [
        Writer(r, "w"),
        Toucher(r),
        Sweeper(r, "s"),
        Sweeper(r, "t", takes_over=True),
    ],
    "a writer that does not hear, who counts on it, a sweeper": lambda r: [
        Writer(r, "w", unheard=True),
        Toucher(r),
        Sweeper(r, "s"),
    ],
    "an upload that lapses, a sweeper": lambda r: [Uploader(r), UploadLapse(), Sweeper(r, "s")],
    "an upload that is taken over, two sweepers": lambda r: [
        Uploader(r),
        Successor(r),
        Sweeper(r, "s"),
        Sweeper(r, "t", takes_over=True),
    ],
    "a writer, a deleter, a sweeper": lambda r: [Writer(r, "w"), Deleter(), Sweeper(r, "s")],
}

LOSSES: Final = {
    "a copy is claimed": "a writer, who counts on it, a sweeper",
    "records are looked at again": "an upload that lapses, a sweeper",
    "the claim ends last": "a writer, who counts on it, a sweeper",
    "the claim is asked again": "a writer, who counts on it, a sweeper",
    "the claim is one's own": "a writer, who counts on it, two sweepers",
    "the look goes to the end": "a writer, who counts on it, a sweeper",
    "uploads are looked at": "an upload that lapses, a sweeper",
    "claims are looked at": "a writer, who counts on it, a sweeper",
    "the claim is taken": "a writer, who counts on it, a sweeper",
    "what goes is not counted on": "a writer, who counts on it, a sweeper",
    "the writer looks": "a writer, who counts on it, a sweeper",
    "who finds a blob looks": "a writer, who counts on it, a sweeper",
    "chunks are counted": "a writer, who counts on it, a sweeper",
    "claims are looked at with the chunks": "a writer, who counts on it, a sweeper",
    "nobody withdraws": "a writer, who counts on it, a sweeper",
}


def examine(name: str, *without: str) -> Found:
    """All states of a scenario, under all rules but these."""
    processes = SCENARIOS[name](Rules(without=frozenset(without)))

    def complain(frozen: Any) -> str | None:
        return complaint(Bucket.thaw(frozen)) or after_the_crash(frozen)

    return explore(processes, Bucket().freeze(), Bucket.thaw, complain, limit=LIMIT)


def after_the_crash(frozen: Any) -> str | None:
    """The faults once all have crashed, and sweeps have come to rest."""
    s = Bucket.thaw(frozen)
    record = s.upload()
    if record is not None and record.state in LIVE:
        s.put_upload(at("failed", record))
    sweeper = Sweeper(Rules(), "z", takes_over=True)
    before, after = None, s.freeze()
    while after != before:
        before, after = after, run_alone(sweeper, after, Bucket.thaw)
    s = Bucket.thaw(after)
    found = complaint(s)
    if found is not None:
        return f"after the sweeps: {found}"
    left = set(s.chunks) - s.named()
    return f"the chunks {sorted(left)} are left" if left else None


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_acknowledged_is_lost_and_no_chunk_is_left_in_any_interleaving(name: str) -> None:
    found = examine(name)

    assert found.complaint is None, "\n".join(found.steps)
    assert found.states > 100


@pytest.mark.parametrize("rule", LOSSES)
def test_without_the_rule_something_is_lost(rule: str) -> None:
    found = examine(LOSSES[rule], rule)

    assert found.complaint is not None


def test_the_blob_is_stored_in_the_end() -> None:
    """The scenarios are of puts that succeed."""
    frozen = run_alone(Writer(Rules(), "w"), Bucket().freeze(), Bucket.thaw)

    assert Bucket.thaw(frozen).promised == {B}
