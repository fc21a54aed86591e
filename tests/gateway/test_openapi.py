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

SECONDS = os.environ.get("SECONDS_OF_FUZZING", "")
"""Instead: how long all phases are gone on with."""

CHECKS = """
[checks.not_a_server_error]  # with much to do nobody may answer in time: that is said
expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]
[checks.missing_required_header]  # 412 is what tus says of a version that is none
expected-statuses = ["400", "401", "403", "412"]
[checks.positive_data_acceptance]  # free texts are not all valid: conditions fail, times are none
expected-statuses = ["2xx", "304", "400", "403", "404", "409", "412", "413", "415", "416", "5xx"]
"""


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
    (tmp_path / "schemathesis.toml").write_text(CHECKS, encoding="utf-8")
    lasting = ["--max-examples", EXAMPLES, "--phases", "fuzzing,stateful"]
    if SECONDS:
        lasting = ["--max-time", SECONDS, "--continue-on-failure"]
    with gateway_process(deployment, "--state", "older") as (url, _):
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
        # A header that nobody knows is passed over, as HTTP has it.
        command += ["--checks", "all", "--exclude-checks", "negative_data_rejection"]
        command += [*lasting, "--no-color"]
        command += ["--request-timeout", "60", "--max-response-time", "60"]
        with (tmp_path / "told").open("w") as told:
            ran = subprocess.run(command, cwd=tmp_path, stdout=told, check=False)

    assert ran.returncode == 0, (tmp_path / "told").read_text()[-20_000:]
