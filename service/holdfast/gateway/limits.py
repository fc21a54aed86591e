"""Limits of requests at once, and a second from one address. Decides, and does nothing."""

from __future__ import annotations

import ipaddress
from typing import Final

from holdfast.errors import RateLimitedError

LEAVE: Final = "holdfast.leave"
"""In the scope of a request: what makes it count no more among those at once."""

MAX_ADDRESSES: Final = 10_000
"""Addresses that are remembered; the one that was silent longest is forgotten first."""

_V6_NETWORK_BITS: Final = 64


class RequestLimits:
    """Counts the requests of a gateway."""

    def __init__(self, *, max_requests: int, per_second: float | None) -> None:
        """``per_second`` is of one address, with as many at once; None: any number."""
        self._max_requests = max_requests
        self._per_second = per_second
        self._burst = max(per_second or 0.0, 1.0)
        self._left: dict[str, tuple[float, float]] = {}
        self.in_flight = 0

    def enter(self, address: str, now: float) -> None:
        """A request of ``address`` begins, at ``now`` seconds. Raises RateLimitedError."""
        if self.in_flight >= self._max_requests:
            raise RateLimitedError("this gateway is at its limit of requests")
        if self._per_second is not None:
            self._take(_network(address), now, self._per_second)
        self.in_flight += 1

    def leave(self) -> None:
        """One that has entered ends."""
        self.in_flight -= 1

    def _take(self, network: str, now: float, per_second: float) -> None:
        left, at = self._left.pop(network, (self._burst, now))
        left = min(left + (now - at) * per_second, self._burst)
        if len(self._left) >= MAX_ADDRESSES:
            del self._left[next(iter(self._left))]
        self._left[network] = (max(left - 1, 0.0) if left >= 1 else left, now)
        if left < 1:
            raise RateLimitedError("too many requests come from this address")


def _network(address: str) -> str:
    """The network of a client: an address, of IPv6 a /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _V6_NETWORK_BITS), strict=False))
