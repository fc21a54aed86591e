"""``client.care``: how what is stored is looked after.

async with await holdfast.connect() as hf:
    report = await hf.care.doctor()
    usage = await hf.care.usage("label")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.client.long_requests import ask_until_done
from holdfast.protocol.care import (
    DIAGNOSE,
    GET_USAGE,
    SCRUB_STATUS,
    DoctorReport,
    GetDoctor,
    GetScrub,
    GetUsage,
    ScrubStatus,
    UsageReply,
)

if TYPE_CHECKING:
    from typing import Literal

    from holdfast.client.requests import Requester

_SECONDS: Final = 600.0
"""Time one request waits for a worker that goes through all there is."""


class Care:
    """The verbs about the state of what is stored.

    All raise ForbiddenError, RateLimitedError and UnavailableError.
    """

    def __init__(self, requester: Requester) -> None:
        """Made by the client."""
        self._requester = requester

    async def scrub(self, *, start: bool = False) -> ScrubStatus:
        """The progress of the scrub at each place, and the damage it found.

        With ``start`` another lap begins, or follows the one that is under way.
        """
        return await self._requester.ask(SCRUB_STATUS, GetScrub(start=start))

    async def doctor(self) -> DoctorReport:
        """The faults of the deployment, the worst first; waits until a worker has looked.

        The records of everything there is are read, so it takes a while where there is much.
        """
        return await ask_until_done(self._requester, DIAGNOSE, GetDoctor(), _SECONDS)

    async def usage(
        self,
        by: Literal["app", "prefix", "label"] = "app",
        *,
        prefix: str = "",
        delimiter: str = "/",
        depth: int = 1,
        limit: int = 100,
    ) -> UsageReply:
        """Stored bytes by their users, and those that nothing needs.

        By ``prefix`` names that begin with it are put together by their first ``depth`` pieces
        between ``delimiter``. The ``limit`` groups that take the most are told. It goes through
        everything there is, and is kept for a minute.
        """
        request = GetUsage(by=by, prefix=prefix, delimiter=delimiter, depth=depth, limit=limit)
        return await ask_until_done(self._requester, GET_USAGE, request, _SECONDS)
