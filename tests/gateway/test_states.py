"""States and their logs over HTTP."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.gateway.conftest import serving
from tests.gateway.test_hostile import Raw

from holdfast.client import connect_sync

if TYPE_CHECKING:
    from tests.deployment import Deployment


def fresh() -> str:
    return f"states/{secrets.token_hex(8)}"


def test_a_state_is_saved_and_read_as_canonical_json(http: httpx.Client) -> None:
    path = f"/state/{fresh()}"

    assert http.get(path).status_code == 404
    saved = http.post(path, content=b'{"b": 1.0, "a": [true]}')
    answer = http.get(path)

    assert saved.status_code == 201
    assert answer.content == b'{"a":[true],"b":1}'
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Blob-Last-Applied-Index"] == "0"
    assert answer.headers["ETag"] == saved.headers["ETag"]
    assert saved.json()["state_hash"] == hashlib.sha256(answer.content).hexdigest()
    unchanged = http.get(path, headers={"If-None-Match": saved.headers["ETag"]})
    assert unchanged.status_code == 304


def test_what_is_no_json_is_not_saved_as_such(http: httpx.Client) -> None:
    path = f"/state/{fresh()}"

    for body in (b"", b"{", b'{"a": 1, "a": 2}', b"NaN", b"\xff"):
        assert http.post(path, content=body).status_code == 400
    assert http.get(path).status_code == 404


def test_a_state_may_be_any_bytes(http: httpx.Client) -> None:
    path, data = f"/state/{fresh()}", secrets.token_bytes(2_000_000)

    saved = http.post(path, content=data, headers={"Content-Type": "application/octet-stream"})

    assert saved.json()["kind"] == "bytes"
    assert http.get(path).content == data
    part = http.get(path, headers={"Range": "bytes=-7"})
    assert (part.status_code, part.content) == (206, data[-7:])


def test_a_state_may_be_no_bytes_at_all(http: httpx.Client) -> None:
    path = f"/state/{fresh()}"

    http.post(path, content=b"", headers={"Content-Type": "application/octet-stream"})

    assert [http.get(url).status_code for url in (path, f"{path}?index=1")] == [200, 200]
    assert http.get(path).content == b""


def test_commands_are_appended_and_read_in_order(http: httpx.Client) -> None:
    name = fresh()

    indexes = [
        http.post(f"/command/{name}", json={"add": number}).json()["index"] for number in range(3)
    ]
    http.post(
        f"/command/{name}", content=b"\0\1", headers={"Content-Type": "application/octet-stream"}
    )
    page = http.get(f"/log/{name}", params={"from": 2}).json()

    assert indexes == [1, 2, 3]
    assert [entry.get("command") for entry in page["entries"]] == [{"add": 1}, {"add": 2}, None]
    assert page["entries"][2]["bytes"] == "AAE="
    assert http.get(f"/log/{name}", params={"limit": 1}).json()["next_index"] == 2


@pytest.mark.parametrize("body", [b"", b"{", b'1, "expected_index": 5', b"\xff", b'"\xff"'])
def test_what_is_no_json_is_no_command(http: httpx.Client, body: bytes) -> None:
    assert http.post(f"/command/{fresh()}", content=body).status_code == 400


def test_who_follows_a_log_and_reads_nothing_gives_its_place_to_others(
    http: httpx.Client, deployment: Deployment
) -> None:
    name = fresh()
    for _ in range(16):
        http.post(f"/command/{name}", json="x" * 900_000)

    with serving(deployment, body_seconds=0.5, max_requests=1) as url, Raw(url) as raw:
        raw.socket.sendall(
            b"GET /log/%s?follow HTTP/1.1\r\nHost: localhost\r\n\r\n" % name.encode()
        )
        raw.socket.recv(1)

        def is_free() -> bool:
            time.sleep(0.05)
            return httpx.get(f"{url}/states", trust_env=False, timeout=60).status_code == 200

        assert any(is_free() for _ in range(600))


def test_an_index_fences_a_second_writer(http: httpx.Client) -> None:
    path = f"/command/{fresh()}"

    def status(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.post(path, json=1, headers=named).status_code

    assert status(If_None_Match="*") == 200
    assert status(If_None_Match="*") == 412
    assert status(If_Match='"1"') == 200
    lost = http.post(path, json=1, headers={"If-Match": '"1"'})
    assert (lost.status_code, lost.headers["ETag"]) == (412, '"2"')
    assert status(If_Match=lost.headers["ETag"]) == 200
    assert [status(If_Match=tags) for tags in ('"x"', "", '"4", "5"')] == [412] * 3
    assert status(If_None_Match='"1"') == 400


def test_a_save_says_how_far_it_goes(http: httpx.Client) -> None:
    name = fresh()
    for number in range(3):
        http.post(f"/command/{name}", json=number)

    def save(state: int, index: int, **query: str) -> int:
        headers = {"Blob-Last-Applied-Index": str(index)}
        return http.post(f"/state/{name}", json=state, headers=headers, params=query).status_code

    assert save(1, 1) == 201
    assert save(3, 3) == 201
    assert save(2, 2) == 409
    assert save(9, 9) in {400, 409}
    assert http.get(f"/state/{name}").json() == 3
    assert http.get(f"/state/{name}", params={"index": 2}).json() == 1
    saves = http.get(f"/state/{name}?saves").json()["saves"]
    assert [one["last_applied_index"] for one in saves] == [3, 1]
    by_hash = http.get(f"/state/{name}", params={"hash": saves[1]["state_hash"]})
    assert by_hash.json() == 1
    assert http.get(f"/state/{name}", params={"index": 1, "hash": "0" * 64}).status_code == 400
    assert save(4, 3, force="") == 201
    listed = http.get("/states", params={"prefix": name}).json()["states"]
    assert [one["name"] for one in listed] == [name]


def test_a_log_is_followed_and_gone_on_with(http: httpx.Client) -> None:
    name = fresh()
    http.post(f"/command/{name}", json="first")

    def told(count: int, **headers: str) -> list[tuple[int, str]]:
        found = []
        with http.stream("GET", f"/log/{name}?follow", headers=headers) as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    entry = json.loads(line.removeprefix("data: "))
                    found.append((entry["index"], entry["command"]))
                    if entry["command"] == "first":
                        httpx.post(
                            f"{http.base_url}/command/{name}".replace("//c", "/c"),
                            json="two",
                            timeout=60,
                        )
                    if len(found) == count:
                        return found
        return found

    assert told(2) == [(1, "first"), (2, "two")]
    assert told(1, **{"Last-Event-ID": "1"}) == [(2, "two")]
    assert http.get(f"/log/{fresh()}?follow").status_code == 404
    head = http.head(f"/log/{name}?follow")
    assert (head.status_code, head.content) == (200, b"")


def test_whoever_names_the_log_is_told_that_a_state_was_removed_and_begun_anew(
    http: httpx.Client, deployment: Deployment
) -> None:
    name = fresh()
    command, state, log = f"/command/{name}", f"/state/{name}", f"/log/{name}"
    for number in range(2):
        http.post(command, json=number)
    appended = http.post(command, json=2)
    lineage = {"Blob-Lineage": appended.headers["Blob-Lineage"]}
    fenced = lineage | {"If-Match": appended.headers["ETag"]}
    applied = {"Blob-Last-Applied-Index": "3"}

    def statuses() -> list[int]:
        followed = {"Last-Event-ID": f"3@{lineage['Blob-Lineage']}"}
        answers = [
            http.post(state, json=[0, 1, 2], headers=applied | lineage),
            http.get(log, params={"from": 4}, headers=lineage),
            http.head(f"{log}?follow", headers=followed),
            http.post(command, json=3, headers=fenced),
            http.post(command, json=4, headers=lineage),
        ]
        return [answer.status_code for answer in answers]

    assert statuses() == [201, 200, 200, 200, 200]
    assert http.get(state).headers["Blob-Lineage"] == lineage["Blob-Lineage"]
    assert http.get(log).headers["Blob-Lineage"] == lineage["Blob-Lineage"]
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as client:
        client.states.remove(name)
    for number in range(3):
        http.post(command, json=f"other {number}")

    assert statuses() == [409] * 5
    assert http.get(state).status_code == 404
    assert http.get(log).json()["last_index"] == 3
    assert http.post(command, json=5, headers={"Blob-Lineage": "no lineage"}).status_code == 400


def test_an_event_names_the_log_that_it_is_of(http: httpx.Client) -> None:
    name = fresh()
    lineage = http.post(f"/command/{name}", json="first").headers["Blob-Lineage"]

    with http.stream("GET", f"/log/{name}?follow") as events:
        line = next(line for line in events.iter_lines() if line.startswith("id: "))

    assert line == f"id: 1@{lineage}"
    for wrong in ("1@", "x", "1@x", ""):
        answer = http.get(f"/log/{name}?follow", headers={"Last-Event-ID": wrong})
        assert answer.status_code == 400


def test_the_older_paths_are_those_of_the_state_that_is_configured(
    http: httpx.Client, deployment: Deployment
) -> None:
    assert http.get("/state").status_code == 404
    with serving(deployment, state=fresh()) as url:
        assert httpx.get(f"{url}/state", timeout=60).status_code == 404
        assert httpx.post(f"{url}/state", json={"a": 1}, timeout=60).status_code == 201
        assert httpx.get(f"{url}/state", timeout=60).json() == {"a": 1}
        assert httpx.post(f"{url}/command", json={"do": "it"}, timeout=60).json()["index"] == 1
