"""JetStream's API for those who can wait: failures that may pass are told apart from others.

A system that is starting has no leader yet, or fewer servers than it will have. A single request
takes both for *unavailable*; a worker or an operator's command that starts with it asks again.

Why: docs/decisions.md, "Unavailable is divided into *not now* and *not so*".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import UnavailableError
from holdfast.transport.backoff import Backoff
from holdfast.transport.inbox import NoRespondersError
from holdfast.transport.jetstream_messages import ApiRefusedError, NotNowError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast.transport.jetstream import JetStream

BEING_MOVED: Final = 10124
"""The stream's copies are being moved already."""
TOO_FEW_SERVERS: Final = frozenset({10005, 10074})
"""No suitable peers, among them none with the tags; more than one replica without a cluster."""
NO_JETSTREAM: Final = frozenset({10039, 10076})
"""Not enabled for the account, not enabled at all."""
_FIRST_WAIT_SECONDS: Final = 0.25
_LONGEST_WAIT_SECONDS: Final = 2.0


class NotReadyError(UnavailableError):
    """Not now, but perhaps in a moment: asking again makes sense."""


async def ask_api(
    js: JetStream, verb: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """As ``js.api``. Raises NotReadyError too: no answer, nobody there yet, no leader.

    UnavailableError where the server or the account has no JetStream.
    """
    try:
        return await js.api(verb, body)
    except NotNowError as error:
        raise NotReadyError(error.detail) from error
    except ApiRefusedError as refused:
        if refused.err_code == BEING_MOVED:
            raise NotReadyError(f"JetStream cannot at the moment ({refused.detail})") from refused
        if refused.err_code in NO_JETSTREAM:
            msg = f"{refused.detail}: enable it in nats-server's configuration"
            raise UnavailableError(msg) from refused
        raise
    except NoRespondersError as error:
        if js.connection.server_info.get("jetstream"):
            raise NotReadyError(error.detail) from error
        server = js.connection.server_info.get("server_name", "")
        msg = (
            f"nobody answers for JetStream, and nats-server {server} does not have it: give it a"
            " jetstream block in its configuration"
        )
        raise UnavailableError(msg) from error
    except UnavailableError as error:
        raise NotReadyError(error.detail) from error


async def wait_ready[T](
    attempt: Callable[[], Awaitable[T]],
    seconds: float,
    *,
    waiting: Callable[[str], None] = lambda _why: None,
) -> T:
    """The result of ``attempt``, tried again for ``seconds`` while it raises NotReadyError.

    ``waiting`` is told why each time the reason is another. Raises what the last attempt raised.
    """
    backoff = Backoff(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS, within_seconds=seconds)
    told = ""
    while True:
        try:
            return await attempt()
        except NotReadyError as error:
            if error.detail != told:
                told = error.detail
                waiting(told)
            if not await backoff.wait():
                raise
