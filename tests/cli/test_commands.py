"""The commands beside ``blob``, and what all have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from holdfast.cli.base import exit_codes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Holdfast
    from tests.conftest import StartServer

pytestmark = pytest.mark.nats


def test_status_shows_the_pool_and_the_store(holdfast: Holdfast) -> None:
    shown = holdfast("status")
    while "one" not in shown.out.decode().split():  # a worker that is busy may miss a question
        shown = holdfast("status")
    found = json.loads(holdfast("status", "--json").out)
    while not found["workers"]:
        found = json.loads(holdfast("status", "--json").out)

    workers, store = found["workers"], found["store"]
    assert shown.status == exit_codes.OK
    assert [worker["metadata"]["node"] for worker in workers] == ["one"]
    assert shown.lines[1].split()[:2] == ["one", workers[0]["id"]]
    rows = [line.split() for line in shown.lines]
    for bucket in store["buckets"]:
        assert [bucket["bucket"], bucket["stream"], bucket["kind"], "1/1"] in [
            row[:4] for row in rows
        ]
    assert [store["servers"][0]["name"], store["servers"][0]["version"]] in [r[:2] for r in rows]
    assert shown.lines[-3:] == [
        "Durability: unknown",
        "Index of names: 0 names, 0 changes behind",
        "The store is what the configuration asks for.",
    ]


def test_status_check_ends_with_0_when_the_store_is_as_asked_for(holdfast: Holdfast) -> None:
    assert holdfast("status", "--check").status == exit_codes.OK


def test_admin_layout_shows_the_buckets_and_what_differs(holdfast: Holdfast) -> None:
    fine = holdfast("admin", "layout")
    other = holdfast("admin", "layout", "--store", "nats://blobs?replicas=3")
    listed = json.loads(holdfast("admin", "layout", "--json").out)

    assert (fine.status, other.status) == (exit_codes.OK, exit_codes.OK)
    assert fine.lines[-1] == "The store is what the configuration asks for."
    assert "1/1, not 3" in other.out.decode()
    problems = other.lines[other.lines.index("The store is not what the configuration asks for:") :]
    assert len(problems) == 7
    assert problems[1].startswith("- bucket cli_blobs has 1 replica and the configuration asks for")
    assert [bucket["bucket"] for bucket in listed["buckets"]] == [
        "cli_blobs",
        "cli_packs",
        "cli_holdfast",
        "cli_snapshots",
        "cli_names",
        "cli_states",
    ]


def test_more_replicas_than_servers_are_refused_and_as_many_as_there_are_is_fine(
    holdfast: Holdfast,
) -> None:
    three = holdfast("admin", "replicas", "3")
    one = holdfast("admin", "replicas", "1", "--json")

    assert three.status == exit_codes.UNAVAILABLE
    assert "3 replicas cannot be: there is 1 server with JetStream" in three.err
    assert one.status == exit_codes.OK
    assert [(row["stream"], row["changed"]) for row in json.loads(one.out)] == [
        ("OBJ_cli_blobs", False),
        ("OBJ_cli_packs", False),
        ("KV_cli_holdfast", False),
        ("KV_cli_snapshots", False),
        ("KV_cli_names", False),
        ("HF_cli_states", False),
    ]
    assert "say replicas=1" in one.err


def test_a_store_without_buckets_has_no_replicas(holdfast: Holdfast) -> None:
    ran = holdfast("admin", "replicas", "1", "--store", "memory://")

    assert ran.status == exit_codes.USAGE
    assert "has no buckets" in ran.err


def test_admin_init_may_be_repeated(holdfast: Holdfast) -> None:
    first = holdfast("admin", "init")
    second = holdfast("admin", "init")

    assert (first.status, second.status) == (0, 0)
    assert first.lines == second.lines != []


def test_a_pool_without_workers_is_unavailable(
    holdfast: Holdfast, start_server: StartServer
) -> None:
    server = start_server().url
    ran = holdfast.unconnected("status", "--server", server)
    as_json = holdfast.unconnected("status", "--json", "--server", server)

    assert (ran.status, as_json.status) == (exit_codes.UNAVAILABLE, exit_codes.UNAVAILABLE)
    assert "no worker answers" in ran.err
    assert json.loads(as_json.out) == {"workers": [], "store": None}


def test_the_store_is_looked_for_in_the_jetstream_domain_that_a_context_names(
    holdfast: Holdfast, start_server: StartServer, tmp_path: Path
) -> None:
    directory = tmp_path / "server"
    server = start_server(
        directory=directory,
        extra_configuration=f"jetstream {{ domain: hub, store_dir: '{directory}' }}",
    )
    for domain in ("hub", "elsewhere"):
        content = {"url": server.url, "jetstream_domain": domain}
        (tmp_path / f"{domain}.json").write_text(json.dumps(content))

    hub = holdfast.unconnected("admin", "init", "--context", str(tmp_path / "hub.json"))
    elsewhere = holdfast.unconnected("admin", "init", "--context", str(tmp_path / "elsewhere.json"))
    by_flag = holdfast.unconnected("admin", "layout", "-s", server.url, "--js-domain", "hub")

    assert (hub.status, by_flag.status) == (exit_codes.OK, exit_codes.OK)
    assert elsewhere.status == exit_codes.UNAVAILABLE


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
        ["admin", "replicas", "6"],
        ["admin", "replicas", "many"],
        ["admin", "init", "--wait", "-1"],
        ["blob", "ls", "--server", "nats://127.0.0.1:99999"],
        ["blob", "ls", "--server", "127.0.0.1:port"],
        ["snapshot", "ls", "--limit", "-1"],
        ["snapshot", "ls", "--since", "0001-01-01T00:00:00+14:00"],
        ["snapshot", "ls", "--until", "9999-12-31T23:59:59-12:00"],
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
    from holdfast.cli.app import build_app

    script = build_app().generate_completion(shell="bash")  # noqa: S604 - its name

    assert "--max-concurrent-requests" in script
