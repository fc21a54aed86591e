"""Requests that take a worker longer than a moment, since it goes through much."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from holdfast.client.requests import Requester
    from holdfast.protocol.blobs import CollectionReply
    from holdfast.protocol.care import DoctorReport, UsageReply
    from holdfast.protocol.operation import Operation, ReplyT, RequestT

ReportT = TypeVar("ReportT", bound="CollectionReply | DoctorReport | UsageReply")


async def ask_long(
    requester: Requester, operation: Operation[RequestT, ReplyT], request: RequestT, seconds: float
) -> ReplyT:
    """The reply of a worker that has ``seconds`` to make it. Raises as ``Requester.ask``."""
    return await requester.ask(operation, request, timeout_seconds=seconds, attempt_seconds=seconds)


async def ask_until_done(
    requester: Requester, operation: Operation[RequestT, ReportT], request: RequestT, seconds: float
) -> ReportT:
    """As ``ask_long``, again and again until the report says that it is done."""
    while True:
        report = await ask_long(requester, operation, request, seconds)
        if report.done:
            return report
