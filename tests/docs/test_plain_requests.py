"""The lines of the pages that begin with ``nats req`` are answered, in their order."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
import pytest_asyncio
from nats.aio.client import Client
from tests.deployment import Asker, Deployment, code_of, deployed
from tests.docs.test_documents import DOCUMENTS, blocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from holdfast.runtime.embedded import EmbeddedServer

COMMAND: Final = "nats req "


class PlainRequest(NamedTuple):
    """What a line has the ``nats`` command send. Header names have ``_`` for ``-``."""

    operation: str
    body: bytes
    headers: dict[str, str]


def plain_request(line: str) -> PlainRequest:
    """What a line sends that reads no file."""
    operation, *rest = shlex.split(line.removeprefix(COMMAND), comments=True)
    words = iter(word for word in rest if not word.startswith("--"))
    body, headers = b"", {}
    for word in words:
        if word == "-H":
            name, value = next(words).split(":", 1)
            headers[name.replace("-", "_")] = value
        else:
            body = word.encode()
    return PlainRequest(operation, body, headers)


def plain_requests(document: Path) -> list[PlainRequest]:
    """Those of a page's examples."""
    lines = "".join(blocks(document, "sh")).splitlines()
    return [plain_request(line) for line in lines if line.startswith(COMMAND) and " < " not in line]


PAGES: Final = {page.stem: found for page in DOCUMENTS if (found := plain_requests(page))}


@pytest.fixture(scope="module")
def deployment(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """A prefix with one worker."""
    with deployed(nats_server.url, "one") as deployment:
        yield deployment


@pytest_asyncio.fixture
async def ask(deployment: Deployment) -> AsyncIterator[Asker]:
    """Sends raw requests to the worker."""
    client = Client()
    await client.connect(deployment.url)
    yield Asker(deployment, client)
    await client.close()


@pytest.mark.nats
@pytest.mark.parametrize("page", PAGES)
async def test_the_plain_requests_of_a_page_are_answered_in_their_order(
    page: str, ask: Asker
) -> None:
    codes = [
        (operation, code_of(await ask(operation, body, **headers)))
        for operation, body, headers in PAGES[page]
    ]

    assert [code for code in codes if code[1] != "ok"] == []


def test_there_are_plain_requests_to_send() -> None:
    assert PAGES.keys() >= {"README", "clients", "names", "states"}
