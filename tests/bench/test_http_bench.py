"""The bench of the gateway measures what it says, at a small size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.bench.http import measure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.long
def test_every_figure_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure(tmp_path, 2 * 1024 * 1024, 1, 64)

    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == "{"]
    assert [figure["what"] for figure in told] == [
        "download",
        "archive",
        "upload",
        "blobs of 4096 bytes a second",
    ]
    assert all(figure["ratio"] > 0 for figure in told[:3])
