"""A JavaScript service, with the official packages and nothing of holdfast's. See ``scripts``."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import some_bytes
from tests.deployment import Deployment, deployed
from tests.js.scripts import find_node, run_script_here

from holdfast.client import connect_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats


@pytest.fixture(scope="module")
def deployment(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """A worker to talk to, started only where there is something to talk to it."""
    find_node()
    with deployed(nats_server.url, "one") as deployment:
        yield deployment


def test_plain_requests_put_get_and_list(deployment: Deployment) -> None:
    digest = hashlib.sha256(b"put from JavaScript").hexdigest()

    seen = run_script_here("requests.mjs", deployment.url, deployment.prefix)

    assert seen == {
        "put": {"digest": digest, "size": 19, "created": True},
        "got": "put from JavaScript",
        "type": "text/plain",
        "range": "from",
        "listed": [digest],
        "absent": ["404", "not_found"],
        "services": ["one"],
    }


def test_plain_requests_create_get_list_and_delete_a_name(deployment: Deployment) -> None:
    name = " what's /new\u00e9\u0301\u4e2d!(1)* "
    data = b"created from JavaScript"

    seen = run_script_here("names.mjs", deployment.url, deployment.prefix, name)

    digest = hashlib.sha256(data).hexdigest()
    assert seen == {
        "created": {"name": name, "digest": digest, "size": 23, "version": 1, "state": "ok"},
        "again": ["conflict", 1],
        "got": data.decode(),
        "told": name,
        "listed": [name],
        "removed": {"deleted": True},
    }


def test_the_stock_object_store_reads_what_was_put_through_a_worker(
    deployment: Deployment,
) -> None:
    blobs = [some_bytes(size, seed=size) for size in (0, 1, 1024 * 1024, 20 * 1024 * 1024)]
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        digests = [holdfast.put(blob).digest for blob in blobs]

    found = run_script_here("object_store.mjs", deployment.url, deployment.bucket, *digests)

    assert found == [
        {"name": digest, "size": len(blob), "sha256": digest}
        for digest, blob in zip(digests, blobs, strict=True)
    ]
