"""The commands beside ``blob``, and what all have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from holdfast.cli import exit_codes

if TYPE_CHECKING:
    from tests.cli.conftest import Holdfast
    from tests.conftest import StartServer

pytestmark = pytest.mark.nats


def test_status_shows_the_pool(holdfast: Holdfast) -> None:
    table = holdfast("status")
    listed = json.loads(holdfast("status", "--json").out)

    assert table.status == exit_codes.OK
    assert [worker["metadata"]["node"] for worker in listed] == ["one"]
    assert table.lines[1].split()[:2] == ["one", listed[0]["id"]]


def test_admin_init_may_be_repeated(holdfast: Holdfast) -> None:
    first = holdfast("admin", "init")
    second = holdfast("admin", "init")

    assert (first.status, second.status) == (0, 0)
    assert first.lines == second.lines != []


def test_a_pool_without_workers_is_unavailable(
    holdfast: Holdfast, start_server: StartServer
) -> None:
    ran = holdfast.unconnected("status", "--server", start_server().url)

    assert ran.status == exit_codes.UNAVAILABLE
    assert "no worker answers" in ran.err


def test_a_server_that_is_not_there_is_unavailable(holdfast: Holdfast) -> None:
    ran = holdfast.unconnected("blob", "ls", "-s", "nats://127.0.0.1:1", "--timeout", "1")

    assert ran.status == exit_codes.UNAVAILABLE
    assert ran.err.startswith("holdfast: unavailable: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["blob", "get"],
        ["blob", "get", "ABC"],
        ["blob", "stat", "../" * 21 + "a"],
        ["blob", "put", "a", "b", "--digest", "0" * 64],
        ["blob", "ls", "--nonsense"],
        ["config", "--max-uploads", "0"],
        ["config", "--context", "unknown"],
        ["up", "--workers", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_a_reason(arguments: list[str], holdfast: Holdfast) -> None:
    ran = holdfast.unconnected(*arguments)

    assert ran.status == exit_codes.USAGE
    assert ran.out == b""
    assert ran.err


def test_config_prints_every_value_with_its_source(
    holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://ada:hunter2@host:4222")
    monkeypatch.setenv("HOLDFAST_STORE", "memory://")

    text = holdfast.unconnected("config", "--max-uploads", "3").out.decode()
    values = json.loads(holdfast.unconnected("config", "--json", "--max-uploads", "3").out)

    assert "hunter2" not in text
    assert values["store"] == {"value": "memory://", "source": "$HOLDFAST_STORE"}
    assert values["max_uploads"] == {"value": 3, "source": "--max-uploads"}
    assert values["nats.servers"]["value"] == ["nats://***@host:4222"]


def test_completion_can_be_generated_for_every_command() -> None:
    from holdfast.cli import build_app

    script = build_app().generate_completion(shell="bash")  # noqa: S604 - its name

    assert "--max-concurrent-requests" in script
