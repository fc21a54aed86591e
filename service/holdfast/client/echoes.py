"""Whether an answer is the one to the request: what both name is the same.

An answer that was kept under an ``Op-Id`` may be another request's, where two clients made up the
same id. A client that took its word would believe stored or archived what nobody sent.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from holdfast.protocol.message import Reply, Request

_ECHOED: Final = (
    *("name", "digest", "size", "upload"),
    *("key", "restore", "app", "labels", "mode", "dry_run"),
)
"""Fields that say what was asked for, and in an answer what was done."""


def check_echo(request: Request, reply: Reply) -> None:
    """Raises CorruptError when ``reply`` tells of something else than ``request`` asked for.

    Fields that either lacks are not compared, nor the content of a snapshot that is still pending.
    """
    for name in _common(type(request), type(reply)):
        asked, told = getattr(request, name), getattr(reply, name)
        if asked is None or told is None or asked == told:
            continue
        if name == "digest" and getattr(reply, "state", None) == "pending":
            continue
        msg = f"the answer is to another request: asked for the {name} {asked}, it is of {told}"
        raise CorruptError(msg)


@functools.cache
def _common(request: type[Request], reply: type[Reply]) -> tuple[str, ...]:
    """The parts that both have; looked up once, for small requests count in microseconds."""
    fields = set(request.__struct_fields__) & set(reply.__struct_fields__)
    return tuple(name for name in _ECHOED if name in fields)
