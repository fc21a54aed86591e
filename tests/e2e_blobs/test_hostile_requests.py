"""Generated hostile requests by the thousand: each gets a listed code, and the worker goes on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from tests.deployment import Asker, Deployment, code_of
from tests.e2e_blobs.hostile import VERBS, Hostile, Maker

from holdfast.errors import ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats.aio.client import Client

pytestmark = [pytest.mark.nats, pytest.mark.slow]

REQUESTS = 2_000
IN_FLIGHT = 64
SEED = 20_260_301
LISTED = {error.code for error in ERRORS} | {"ok"}


@pytest.mark.fault("I01")
@pytest.mark.fault("I02")
@pytest.mark.fault("I03")
@pytest.mark.fault("I04")
@pytest.mark.fault("I05")
@pytest.mark.fault("I06")
@pytest.mark.fault("I07")
@pytest.mark.fault("I08")
@pytest.mark.fault("I13")
async def test_hostile_requests_get_listed_codes_and_the_worker_goes_on(
    ask: Asker, client: Client, deployment: Deployment
) -> None:
    kept = b"kept through it all"
    digests = [(await ask.json("blob.put", data))["digest"] for data in (kept, b"other", b"")]
    opened = [await ask.json("blob.open") for _ in range(3)]
    part_subject = opened[0]["part_subject"].rpartition(".")[0]
    maker = Maker(SEED, digests[1:], [upload["upload"] for upload in opened])
    left = (maker.make() for _ in range(REQUESTS))
    codes: Counter[tuple[str, str]] = Counter()

    def subject_of(request: Hostile) -> str:
        if request.verb == "part":
            return f"{part_subject}.{request.target}"
        return deployment.subject(f"blob.{request.verb}")

    async def send_some(requests: Iterator[Hostile]) -> None:
        for request in requests:
            try:
                answer = await client.request(
                    subject_of(request),
                    request.body,
                    timeout=20,
                    headers=request.headers or None,
                )
            except NatsTimeoutError:
                pytest.fail(f"no answer to {request!r}")
            code = code_of(answer)
            assert code in LISTED, request
            assert code != "internal", (request, answer.data)
            codes[request.verb, code] += 1

    await asyncio.gather(*(send_some(left) for _ in range(IN_FLIGHT)))

    assert codes.total() == REQUESTS
    assert {verb for verb, _ in codes} == {*VERBS, "part"}
    assert {"ok", "invalid", "not_found"} <= {code for _, code in codes}
    assert (await ask("blob.get", digests[0].encode())).data == kept
    assert json.loads((await ask("blob.stat", {"digest": digests[0]})).data)["size"] == len(kept)
    assert deployment.workers["one"].poll() is None
