"""Makes links with the keys there are, for where clients reach the gateways."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.domain.link_keys import signing_key
from holdfast.domain.sigv4 import LinkTarget, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from holdfast.domain.link_keys import LinkKey
    from holdfast.domain.link_targets import PublicUrl


@dataclass(frozen=True, slots=True)
class LinkSigner:
    """``keys`` gives those that there are now."""

    keys: Callable[[], Sequence[LinkKey]]
    public: PublicUrl

    def make(
        self, method: str, path: str, query: str, *, now: datetime, seconds: int
    ) -> tuple[str, datetime]:
        """A link and when it expires: with its key, where that ends before ``seconds`` are over.

        Raises UnavailableError (no key holds), InvalidError.
        """
        key = signing_key(self.keys(), now)
        now = now.replace(microsecond=0)
        if key.until is not None:
            seconds = min(seconds, max(1, (key.until - now) // timedelta(seconds=1)))
        path = self.public.base + path
        target = LinkTarget(method=method, host=self.public.host, path=path, query=query)
        signed = sign(target, key_id=key.id, secret=key.secret, now=now, seconds=seconds)
        return self.public.url(path, signed), now + timedelta(seconds=seconds)
