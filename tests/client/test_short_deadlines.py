"""Requests whose deadline is short: they are repeated all the same."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.client import connect
from holdfast.errors import HoldfastError, OutcomeUnknownError, UnavailableError
from holdfast.protocol import codec
from holdfast.protocol.states import (
    LIST_STATES,
    REMOVE_STATE,
    ListStates,
    RemoveState,
    StatePage,
    StateRemoved,
)

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from tests.deployment import Asker

pytestmark = pytest.mark.nats

SECONDS = 0.2
TRIES = 100
"""A machine that is busy may take longer than the deadline for the first answer."""


@pytest.mark.parametrize(
    ("operation", "request_", "reply", "refusal"),
    [
        (LIST_STATES, ListStates(), StatePage(states=[]), UnavailableError("not now")),
        (REMOVE_STATE, RemoveState(name="a"), StateRemoved(removed=True), UnavailableError("no")),
        (REMOVE_STATE, RemoveState(name="a"), StateRemoved(removed=True), OutcomeUnknownError("?")),
    ],
    ids=["read", "change", "change that may be made"],
)
async def test_what_a_worker_refuses_at_first_is_asked_again(
    operation: Any, request_: Any, reply: Any, refusal: HoldfastError, ask: Asker
) -> None:
    prefix = f"{ask.deployment.prefix}-{type(refusal).__name__}"
    asked = 0

    async def answer(message: Msg) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await message.respond(codec.encode(reply))
        else:
            headers, body = codec.encode_error(refusal, codec.Encoding.JSON)
            await ask.client.publish(message.reply, body, headers=headers)

    subscription = await ask.client.subscribe(f"{prefix}.{operation.subject}", cb=answer)
    await ask.client.flush()
    async with await connect(servers=ask.deployment.url, prefix=prefix) as client:
        answers = []
        for _ in range(TRIES):
            asked = 0
            with suppress(HoldfastError):
                answers.append(
                    await client.requester.ask(operation, request_, timeout_seconds=SECONDS)
                )
                break

    assert answers == [reply]
    await subscription.unsubscribe()
