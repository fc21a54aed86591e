"""A JavaScript service, with the official packages and nothing of holdfast's.

Run ``npm install --prefix tests/js`` once. Without node or the packages these tests are skipped on
a laptop, and fail where ``CI`` is set.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.contracts.blob_store import some_bytes
from tests.deployment import Deployment, deployed

from holdfast.client import connect_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

HERE = Path(__file__).parent

type RunScript = Callable[..., Any]


@pytest.fixture(scope="module")
def run_script() -> RunScript:
    """Runs a script of this directory with node; what it printed, read as JSON."""
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules/@nats-io/transport-node").is_dir():
        reason = "node, or the packages of tests/js/package.json, are not installed"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    def run(script: str, *arguments: str) -> Any:
        done = subprocess.run(
            [node, str(HERE / script), *arguments],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def deployment(run_script: RunScript, nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """A worker to talk to, started only where there is something to talk to it."""
    del run_script
    with deployed(nats_server.url, "one") as deployment:
        yield deployment


def test_plain_requests_put_get_and_list(deployment: Deployment, run_script: RunScript) -> None:
    digest = hashlib.sha256(b"put from JavaScript").hexdigest()

    seen = run_script("requests.mjs", deployment.url, deployment.prefix)

    assert seen == {
        "put": {"digest": digest, "size": 19, "created": True},
        "got": "put from JavaScript",
        "type": "text/plain",
        "range": "from",
        "listed": [digest],
        "absent": ["404", "not_found"],
        "services": ["one"],
    }


def test_the_stock_object_store_reads_what_was_put_through_a_worker(
    deployment: Deployment, run_script: RunScript
) -> None:
    blobs = [some_bytes(size, seed=size) for size in (0, 1, 1024 * 1024, 20 * 1024 * 1024)]
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        digests = [holdfast.put(blob).digest for blob in blobs]

    found = run_script("object_store.mjs", deployment.url, deployment.bucket, *digests)

    assert found == [
        {"name": digest, "size": len(blob), "sha256": digest}
        for digest, blob in zip(digests, blobs, strict=True)
    ]
