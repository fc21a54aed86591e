"""The gateway answers as its OpenAPI document says, whatever is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.gateway.conftest import gateway_process

if TYPE_CHECKING:
    from pathlib import Path

    import httpx
    from tests.deployment import Deployment

EXAMPLES = os.environ.get("EXAMPLES", "1")
"""How many are tried of each operation."""


def test_the_document_is_served(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()

    assert document["openapi"] == "3.1.0"
    assert {"/blobs/{digest}", "/store/{name}", "/snapshots/{key}/archive"} <= set(
        document["paths"]
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_answer_is_another_than_the_document_says(
    deployment: Deployment, tmp_path: Path
) -> None:
    # Free texts are not all valid: conditions may fail, and times be none. A body may be too large
    # before it is looked at.
    skipped = "positive_data_acceptance,negative_data_rejection"
    # On a machine that has much to do nobody may answer in time: that is said, and no mistake.
    (tmp_path / "schemathesis.toml").write_text(
        '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "503", "504"]\n'
    )
    with gateway_process(deployment) as (url, _):
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
        command += ["--checks", "all", "--exclude-checks", skipped, "--max-examples", EXAMPLES]
        command += ["--request-timeout", "60", "--max-response-time", "60"]
        command += ["--phases", "fuzzing,stateful", "--no-color"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stdout[-20_000:]
