"""Processes that were forked after ``import holdfast`` are clients like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from tests.e2e_snapshots.site import Site

pytestmark = pytest.mark.nats

CHILDREN: Final = 10


def test_each_request_of_a_forked_child_does_what_it_was_answered(running: Site) -> None:
    (running.apps / "site").mkdir()
    program = Path(__file__).with_name("forking.py")
    deployment = running.deployment

    said = subprocess.run(
        [
            sys.executable,
            str(program),
            deployment.url,
            deployment.prefix,
            str(running.apps),
            str(CHILDREN),
        ],
        capture_output=True,
        check=True,
        timeout=280,
    )

    found = json.loads(said.stdout)
    assert found == {f"child-{number}": [] for number in range(CHILDREN)}
