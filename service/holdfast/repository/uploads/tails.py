"""The tail of an upload that this worker owns: bytes of a part that is not whole yet.

Each is stored anew, longer, in a staging of its own, and counts once the upload's record names it:
that is one compare-and-set of the owner, so a tail that was acknowledged is what any next owner
finds. The one before it is removed then.

Why: docs/decisions.md, "What does not fill a part is the upload's tail".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from holdfast.errors import UnavailableError
from holdfast.repository.uploads.record import PartTail, UploadRecord, with_spare, with_tail

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.repository.uploads.stagings import Stagings

    Change = Callable[[Callable[[UploadRecord], UploadRecord]], Awaitable[None]]


class UploadTail:
    """``data`` is what there is of the next part."""

    def __init__(
        self,
        stagings: Stagings,
        part_size: int,
        *,
        change: Change,
        new_id: Callable[[], str],
    ) -> None:
        """``change`` changes the upload's record, and raises where it is another's by now."""
        self.data = b""
        self._stagings = stagings
        self._part_size = part_size
        self._change = change
        self._new_id = new_id
        self._spare: str | None = None
        self._spent: frozenset[str] = frozenset()

    @property
    def spares(self) -> list[str]:
        """Nuids that this worker may have written to and no record names."""
        return [self._spare] if self._spare is not None else []

    async def store(self, part: int, data: bytes, former: PartTail | None) -> None:
        """Have ``data`` be the tail, in the place of ``former``, durably.

        All parts before it are stored. Raises what the store and ``change`` do: then nobody knows.
        """
        if self._spare is None:
            self._spare = self._new_id()
            await self._change(partial(with_spare, self._spare))
        await self._stagings.store.stage(self._spare, self._part_size).write(0, data)
        tail = PartTail(nuid=self._spare, part=part, size=len(data))
        spare = self._new_id()
        await self._change(partial(with_tail, tail, self._spent, spare))
        self.data, self._spare = data, spare
        if former is not None:
            await self._stagings.remove(former.nuid)
            self._spent = frozenset({former.nuid})

    async def load(self, tail: PartTail | None, part: int) -> None:
        """Have what is stored of part ``part``: ``tail``, if it is of that.

        Raises UnavailableError.
        """
        self.data = b""
        if tail is None or tail.part != part:
            return
        async for data in self._stagings.store.staged_parts(tail.nuid):
            self.data = bytes(data)
            break
        if len(self.data) != tail.size:
            raise UnavailableError("the last bytes of the upload cannot be read back now")
