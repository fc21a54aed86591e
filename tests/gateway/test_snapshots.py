"""Snapshots over HTTP: lists, files, archives that can be carried on, and work that is followed."""

from __future__ import annotations

import io
import json
import os
import secrets
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import pytest
import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

BIG = secrets.token_bytes(2_500_000)
ODD = b"line\nbreak \xff<b>\"'%2e"


class Blog(NamedTuple):
    """An app with two snapshots."""

    app: str
    first: str
    second: str


def ended(http: httpx.Client, location: str) -> dict[str, Any]:
    """The record at its end, as the events tell it."""
    names, record = [], {}
    with http.stream("GET", f"{location}/events") as events:
        assert events.headers["Content-Type"].startswith("text/event-stream")
        name = ""
        for line in events.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
                names.append(name)
            elif field == "data":
                record = json.loads(value)
    assert set(names[:-1]) <= {"progress"}
    assert names[-1] == "end"
    return record


def snapshot(http: httpx.Client, app: str, **more: Any) -> str:
    made = http.post("/snapshots", json={"app": app, **more})
    assert made.status_code == 202
    record = ended(http, made.headers["Location"])
    assert record["state"] == "ok"
    key: str = record["key"]
    return key


@pytest.fixture(scope="session")
def blog(url: str, apps: Path) -> Iterator[Blog]:
    """An app that was archived, changed, and archived again."""
    import httpx

    app = f"blog-{secrets.token_hex(4)}"
    (apps / app / "posts").mkdir(parents=True)
    (apps / app / "posts" / "one.html").write_text("<h1>one</h1>")
    (apps / app / "big.bin").write_bytes(BIG)
    with open(os.fsencode(apps / app / "posts") + b"/" + ODD, "wb") as odd:
        odd.write(b"odd")
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        first = snapshot(http, app, labels={"why": "a start"})
        (apps / app / "posts" / "two.html").write_text("<h1>two</h1>")
        yield Blog(app, first, snapshot(http, app))


def test_snapshots_are_listed_by_app_label_and_page(http: httpx.Client, blog: Blog) -> None:
    def keys(**query: str | int) -> list[str]:
        page = http.get("/snapshots", params={"app": blog.app, **query}).json()
        return [record["key"] for record in page["snapshots"]]

    assert keys() == [blog.second, blog.first]
    assert keys(label="why=a start") == [blog.first]
    assert keys(since="2999-01-01T00:00:00Z") == []
    assert keys(state="failure") == []
    assert keys(limit=1) == [blog.second]
    assert http.get("/snapshots", params={"since": "yesterday"}).status_code == 400
    assert http.get("/snapshots", params={"app": "../x"}).status_code == 400


def test_a_record_is_told_and_one_that_is_not_there_is_404(http: httpx.Client, blog: Blog) -> None:
    assert http.get(f"/snapshots/{blog.first}").json()["labels"] == {"why": "a start"}
    missing = blog.first[:-1] + ("0" if blog.first[-1] != "0" else "1")
    for tail in ("", "/files", "/archive", "/files/x", "/events", "/diff"):
        assert http.get(f"/snapshots/{missing}{tail}").status_code == 404
    assert http.get("/snapshots/nonsense").status_code == 400


def test_files_are_listed(http: httpx.Client, blog: Blog) -> None:
    page = http.get(f"/snapshots/{blog.first}/files", params={"path": "posts"}).json()

    assert "posts/one.html" in [entry["path"] for entry in page["entries"]]


def test_a_file_is_read_whole_and_in_part(http: httpx.Client, blog: Blog) -> None:
    path = f"/snapshots/{blog.first}/files/big.bin"

    whole, head = http.get(path), http.head(path)
    part = http.get(path, headers={"Range": "bytes=1000000-1999999"})
    last = http.get(path, headers={"Range": "bytes=-1", "If-Range": whole.headers["ETag"]})

    assert whole.content == BIG
    assert head.headers["Content-Length"] == str(len(BIG))
    assert (part.status_code, part.content) == (206, BIG[1_000_000:2_000_000])
    assert (last.status_code, last.content) == (206, BIG[-1:])


@pytest.mark.fault("H09")
def test_a_page_in_a_snapshot_is_a_file_to_be_saved(http: httpx.Client, blog: Blog) -> None:
    answer = http.get(f"/snapshots/{blog.first}/files/posts/one.html")

    assert answer.text == "<h1>one</h1>"
    assert answer.headers["Content-Disposition"].startswith("attachment;")
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_a_file_whose_name_is_any_bytes_is_read(http: httpx.Client, blog: Blog) -> None:
    answer = http.get(f"/snapshots/{blog.first}/files/posts/{quote(ODD)}")

    assert answer.content == b"odd"
    assert "\n" not in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("path", ["posts", "nothing", "posts/one.html/x"])
def test_what_is_no_file_has_no_bytes(http: httpx.Client, blog: Blog, path: str) -> None:
    assert http.get(f"/snapshots/{blog.first}/files/{path}").status_code in {400, 404, 409}


@pytest.mark.fault("H08")
@pytest.mark.parametrize("path", ["%2e%2e/etc/passwd", "posts/%2E%2E/big.bin", "%2Fetc", "a//b"])
def test_a_path_that_would_be_rewritten_is_400(http: httpx.Client, blog: Blog, path: str) -> None:
    assert http.get(f"/snapshots/{blog.first}/files/{path}").status_code == 400


def test_an_archive_is_read_whole_and_carried_on(http: httpx.Client, blog: Blog) -> None:
    path = f"/snapshots/{blog.second}/archive"

    head, whole = http.head(path), http.get(path)
    cut = len(whole.content) // 3
    rest = http.get(path, headers={"Range": f"bytes={cut}-", "If-Range": head.headers["ETag"]})

    assert head.headers["Content-Length"] == str(len(whole.content))
    assert (rest.status_code, whole.content[:cut] + rest.content) == (206, whole.content)
    assert f"{blog.app}-" in head.headers["Content-Disposition"]
    data = zstandard.ZstdDecompressor().stream_reader(whole.content, read_across_frames=True).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert sorted(name for name in tar.getnames() if name.endswith(".html")) == [
            "posts/one.html",
            "posts/two.html",
        ]


def test_what_changed_is_told_since_the_parent_or_another(http: httpx.Client, blog: Blog) -> None:
    for query in ({}, {"from": blog.first}):
        page = http.get(f"/snapshots/{blog.second}/diff", params=query).json()

        assert ["posts/two.html", "added"] in [
            [change["path"], change["change"]] for change in page["changes"]
        ]
    assert http.get(f"/snapshots/{blog.first}/diff").status_code == 400


def test_a_snapshot_is_restored_and_followed(http: httpx.Client, blog: Blog, apps: Path) -> None:
    other = f"{blog.app}-copy"

    made = http.post(f"/snapshots/{blog.first}/restore", json={"app": other})
    record = ended(http, made.headers["Location"])

    assert made.status_code == 202
    assert record["state"] == "ok"
    assert (apps / other / "big.bin").read_bytes() == BIG
    assert http.get(made.headers["Location"]).json()["state"] == "ok"
    again = http.post(f"/snapshots/{blog.first}/restore", json={"app": other})
    assert again.status_code == 409 or ended_badly(http, again.headers["Location"])


def ended_badly(http: httpx.Client, location: str) -> bool:
    return bool(ended(http, location)["state"] == "failure")


def test_a_dry_run_says_what_it_would_do(http: httpx.Client, blog: Blog, apps: Path) -> None:
    asked = {"app": f"{blog.app}-dry", "dry_run": True}

    record = ended(
        http, http.post(f"/snapshots/{blog.first}/restore", json=asked).headers["Location"]
    )

    assert record["plan_count"] > 0
    assert not (apps / f"{blog.app}-dry").exists()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"app": 5}', b'{"app": "x", "unknown": 1}', b"\xff", b"[" * 100000]
)
def test_a_body_that_asks_for_nothing_known_is_400(http: httpx.Client, body: bytes) -> None:
    assert http.post("/snapshots", content=body).status_code == 400


def test_a_key_in_the_body_does_not_overrule_the_path(http: httpx.Client, blog: Blog) -> None:
    body = {"key": blog.second, "dry_run": True}

    assert http.post(f"/snapshots/{blog.first}/restore", json=body).status_code == 400


def test_a_message_that_is_too_large_is_413(http: httpx.Client) -> None:
    assert http.post("/snapshots", content=b" " * (1024 * 1024 + 1)).status_code == 413


def test_an_app_that_nobody_has_is_404(http: httpx.Client) -> None:
    assert http.post("/snapshots", json={"app": "nobodys"}).status_code == 404


def test_a_snapshot_is_forgotten_once(http: httpx.Client, blog: Blog) -> None:
    key = snapshot(http, blog.app)

    assert http.delete(f"/snapshots/{key}").status_code == 204
    assert http.delete(f"/snapshots/{key}").status_code == 404
