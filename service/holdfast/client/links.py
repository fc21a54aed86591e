"""Links: asking for one, and saying that one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast.client.requests import NotOfferedError, Requester
from holdfast.errors import ForbiddenError, UnavailableError

if TYPE_CHECKING:
    from holdfast.protocol.links import LinkBlob, LinkMade, LinkSnapshot
    from holdfast.protocol.operation import Operation

NO_KEYS: Final = (
    "no worker makes links: give some HOLDFAST_LINK_KEYS, a file that `holdfast link-key create`"
    " makes, and HOLDFAST_PUBLIC_URL, where clients reach the gateways"
)


async def make_link(
    requester: Requester,
    operation: Operation[Any, LinkMade],
    request: LinkBlob | LinkSnapshot,
) -> LinkMade:
    """The link. Raises UnavailableError also where no worker has keys, and says what to set."""
    try:
        return await requester.ask(operation, request, is_new=True)
    except NotOfferedError as error:
        if isinstance(error.__cause__, ForbiddenError):
            raise error.__cause__ from None
        raise UnavailableError(NO_KEYS) from error
