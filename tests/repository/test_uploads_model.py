"""Any history of sends, pauses, deaths and takeovers over two workers ends in the blob, or nothing.

The client is honest: it sends part after part of one blob to whoever owns the upload, and resumes
elsewhere when it is refused. The workers are not asked whether they still own anything.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from tests.contracts.blob_store import some_bytes
from tests.examples import at_length
from tests.repository.pool import PART_BYTES, Pool, finish, parts_of, put_anew

from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, NotFoundError, UnavailableError
from holdfast.repository.uploads.owned import Opened
from holdfast.repository.uploads.record import LIVE, UPLOAD

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from holdfast.repository.uploads.record import Result
    from holdfast.repository.uploads.uploads import UploadService

DATA = some_bytes(5 * PART_BYTES + 3)
PARTS = parts_of(DATA)
OP_ID = "the-operation"
WORKERS = st.integers(0, 1)
REFUSALS = (ConflictError, UnavailableError, NotFoundError)


class UploadModel(RuleBasedStateMachine):
    """One client, two workers, one upload."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.pool = Pool()
        self.workers = [self.pool.worker("w0"), self.pool.worker("w1")]
        self.target = 0
        self.state: Opened | None = None
        self.acknowledged = 0
        self.result: Result | None = None
        self.given_up = False
        self.numbers = [1, 2]
        self.replaced = 0
        self.excused: set[str] = set()

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``."""
        return self.runner.run(work)

    @property
    def owner(self) -> UploadService:
        """Whom the client takes for the owner."""
        return self.workers[self.target]

    def heard(self, answer: Opened | Result, worker: int) -> None:
        """Note where an upload stands, and that nothing acknowledged is missing."""
        if isinstance(answer, Opened):
            assert self.acknowledged <= answer.next_part <= len(PARTS)
            assert self.state is None or answer.upload == self.state.upload
            self.state, self.target = answer, worker
            self.acknowledged = answer.next_part
        else:
            self.committed(answer)

    def committed(self, result: Result) -> None:
        """Note the result, which never changes."""
        assert (result.digest, result.size) == (digest_of(DATA), len(DATA))
        assert self.result in (None, result)
        self.result = result

    @precondition(lambda self: self.state is None and self.result is None)
    @rule(worker=WORKERS)
    def open(self, worker: int) -> None:
        answer = self.run(
            self.workers[worker].open(size=len(DATA), digest=None, type="a/b", op_id=OP_ID)
        )
        self.heard(answer, worker)

    @precondition(lambda self: self.state is not None)
    @rule(repeat=st.booleans())
    def send(self, repeat: bool) -> None:
        assert self.state is not None
        number = max(self.acknowledged - 1, 0) if repeat else self.acknowledged
        if number >= len(PARTS):
            return
        try:
            self.run(self.owner.part(self.state.upload, number, PARTS[number]))
        except REFUSALS:
            return
        self.acknowledged = max(self.acknowledged, number + 1)

    @precondition(lambda self: self.state is not None)
    @rule(worker=WORKERS)
    def resume(self, worker: int) -> None:
        assert self.state is not None
        try:
            answer = self.run(self.workers[worker].resume(self.state.upload))
        except REFUSALS:
            return
        self.heard(answer, worker)

    @precondition(lambda self: self.state is not None)
    @rule()
    def both_take_over_at_once(self) -> None:
        upload = self.state.upload if self.state is not None else ""

        async def race() -> list[Any]:
            taking = (worker.resume(upload) for worker in self.workers)
            return await asyncio.gather(*taking, return_exceptions=True)

        for number, answer in enumerate(self.run(race())):
            if isinstance(answer, BaseException):
                assert isinstance(answer, REFUSALS)
            else:
                self.heard(answer, number)

    @precondition(lambda self: self.state is not None)
    @rule(worker=WORKERS)
    def end(self, worker: int) -> None:
        assert self.state is not None
        if self.acknowledged < len(PARTS):
            return
        try:
            self.committed(self.run(finish(self.workers[worker], self.state.upload, DATA)))
        except REFUSALS:
            return

    @precondition(lambda self: self.state is not None)
    @rule(worker=WORKERS)
    def abort(self, worker: int) -> None:
        assert self.state is not None
        try:
            self.given_up |= self.run(self.workers[worker].abort(self.state.upload))
        except REFUSALS:
            return

    @rule(worker=WORKERS)
    def die_and_be_replaced(self, worker: int) -> None:
        if not self.run(self.owns(worker)):
            # What it may have written since it lost the upload only the collector can find.
            self.excused.add(f"{self.numbers[worker]:04d}")
        self.replaced += 1
        self.numbers[worker] = 2 + self.replaced
        self.workers[worker] = self.pool.worker(f"w{worker} again")

    @rule(seconds=st.sampled_from((1, 11, 20, 100)))
    def pass_time(self, seconds: int) -> None:
        self.pool.time.advance(seconds)

    @rule(worker=WORKERS)
    def do_chores(self, worker: int) -> None:
        self.run(self.workers[worker].renew())
        self.given_up |= self.run(self.workers[worker].sweep()) > 0

    def teardown(self) -> None:
        """In the end the client has its answer, and only the blob is there."""
        try:
            self.run(self.end_well())
        finally:
            self.runner.close()

    async def end_well(self) -> None:
        if self.result is None and not self.given_up:
            self.committed(await put_anew(self.pool, self.pool.worker("last"), DATA, OP_ID))
        self.pool.time.advance(60)
        for worker in self.workers:
            await worker.renew()
        expected = {} if self.result is None else {digest_of(DATA): DATA}
        assert await self.pool.stored() == expected
        assert {nuid[:4] for nuid in await self.pool.leftovers()} <= self.excused

    async def owns(self, worker: int) -> bool:
        """Whether the record says that the upload is this worker's."""
        records = [record async for record in self.pool.records.list_records("u")]
        uploads = [UPLOAD.read(record).record for record in records]
        return any(
            upload.nuids[-1].startswith(f"{self.numbers[worker]:04d}")
            for upload in uploads
            if upload.state in LIVE
        )


@pytest.mark.parametrize("histories", at_length(40, 120))
def test_any_history_ends_in_the_blob_or_in_nothing(histories: int) -> None:
    run_state_machine_as_test(
        UploadModel,
        settings=settings(
            max_examples=histories,
            stateful_step_count=25,
            deadline=None,  # the machine may be busy
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
