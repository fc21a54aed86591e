"""``client.care``: how what is stored is looked after.

async with await holdfast.connect() as hf:
    status = await hf.care.scrub()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.protocol.care import SCRUB_BLOBS, GetScrub, ScrubStatus

if TYPE_CHECKING:
    from holdfast.client.requests import Requester


class Care:
    """What a client can ask about the state of what is stored.

    All raise ForbiddenError, RateLimitedError and UnavailableError.
    """

    def __init__(self, requester: Requester) -> None:
        """Made by the client."""
        self._requester = requester

    async def scrub(self, *, start: bool = False) -> ScrubStatus:
        """How far everything was read back, at each place, and what was found damaged.

        With ``start`` another lap begins, or follows the one that is under way.
        """
        return await self._requester.ask(SCRUB_BLOBS, GetScrub(start=start))
