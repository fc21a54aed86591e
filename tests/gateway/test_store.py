"""Named blobs over HTTP, with the status codes of the server that their users come from."""

from __future__ import annotations

import secrets
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest

from holdfast.client import connect_sync
from holdfast.domain.digest import digest_of

if TYPE_CHECKING:
    import httpx
    from tests.deployment import Deployment


def fresh(prefix: str = "") -> str:
    return f"{prefix}{secrets.token_hex(8)}"


def test_a_name_is_made_read_replaced_and_removed(http: httpx.Client) -> None:
    path = f"/store/{fresh('notes/')}"

    assert http.put(path, content=b"new").status_code == 404
    assert http.post(path, content=b"one").status_code == 201
    assert http.post(path, content=b"two").status_code == 409
    assert http.get(path).content == b"one"
    assert http.put(path, content=b"three").status_code == 200
    assert http.get(path).content == b"three"
    assert http.head(path).headers["Content-Length"] == "5"
    assert http.delete(path).status_code == 204
    assert http.delete(path).status_code == 404
    assert http.get(path).status_code == 404
    assert http.head(path).status_code == 404


def test_what_is_said_of_a_name_comes_back_in_headers(http: httpx.Client) -> None:
    path = f"/store/{fresh()}"
    said = {
        "Content-Type": "text/plain",
        "Blob-Labels": "why=a%20%C3%A9%26b&who=me",
        "Blob-Expires": "2999-01-01T00:00:00Z",
    }

    http.post(path, content=b"labelled", headers=said)
    answer = http.get(path)

    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["Blob-Labels"] == "why=a%20%C3%A9%26b&who=me"
    assert answer.headers["Blob-Expires"].startswith("2999-01-01T00:00:00")
    assert answer.headers["Blob-Version"] == "1"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["Last-Modified"].endswith("GMT")


@pytest.mark.parametrize(
    "headers", [{"Blob-Labels": "=x"}, {"Blob-Labels": "a=\u00e9"}, {"Blob-Expires": "tomorrow"}]
)
def test_what_cannot_be_said_of_a_name_is_refused(
    http: httpx.Client, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    assert http.post(f"/store/{fresh()}", content=b"x", headers=raw).status_code == 400


@pytest.mark.parametrize("name", ["a b", "é/ü", "per%cent", "q?s", "h#h", '<b>"x"</b>', "a+b"])
def test_a_name_is_any_text(http: httpx.Client, name: str) -> None:
    name = f"{fresh()}/{name}"

    made = http.post(f"/store/{quote(name)}", content=name.encode())

    assert made.json()["name"] == name
    assert http.get(made.headers["Location"]).content == name.encode()
    assert http.get("/store", params={"name": name}).content == name.encode()


@pytest.mark.fault("H08")
@pytest.mark.parametrize("name", [".", "..", "a/../b", "./a", "a//b", "/a", "a/", "a\nb", "a\0b"])
def test_a_name_that_no_path_can_carry_goes_by_the_query(http: httpx.Client, name: str) -> None:
    made = http.post("/store", params={"name": name}, content=b"odd")
    assert made.status_code == 201
    assert made.headers["Location"] == f"/store?name={quote(name, safe='')}"
    assert http.get(made.headers["Location"]).content == b"odd"
    assert http.put("/store", params={"name": name}, content=b"odder").status_code == 200
    assert http.delete(made.headers["Location"]).status_code == 204


@pytest.mark.fault("H09")
@pytest.mark.parametrize(
    "name",
    ['"; filename="run.exe', "a\r\nSet-Cookie: a=b", "<img src=x onerror=alert(1)>", "\u202egpj"],
)
def test_whatever_a_name_has_in_it_it_is_saved_under_that(http: httpx.Client, name: str) -> None:
    http.put("/store", params={"name": name}, content=b"odd", headers={"If-None-Match": "*"})

    answer = http.get("/store", params={"name": name})

    said = answer.headers["Content-Disposition"]
    plain, _, exact = said.removeprefix('attachment; filename="').partition("\"; filename*=UTF-8''")
    assert answer.content == b"odd"
    assert plain.isprintable()
    assert '"' not in plain
    assert unquote(exact) == name
    assert "Set-Cookie" not in answer.headers


@pytest.mark.fault("H08")
@pytest.mark.parametrize(
    "path",
    [
        "a/../b",
        "%2e%2e/b",
        "a/%2E%2E",
        ".",
        "%2e",
        "a//b",
        "/a",
        "a/",
        "",
        "%2Fa",
        "a%2F..%2Fb",
        "a%00b",
        "%0a",
        "%ff",
        "a%c3",
    ],
)
def test_such_a_name_in_a_path_is_400_where_it_arrives(url: str, path: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        command = ["curl", "-sS", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"]
        command += ["-X", method, f"{url}/store/{path}"]

        assert subprocess.run(command, capture_output=True, check=True).stdout == b"400"


def test_conditions_hold_for_every_verb(http: httpx.Client) -> None:
    path, other = f"/store/{fresh()}", '"other"'

    assert http.put(path, content=b"a", headers={"If-Match": "*"}).status_code == 412
    made = http.put(path, content=b"a", headers={"If-None-Match": "*"})
    assert made.status_code == 201
    etag = made.headers["ETag"]
    assert http.put(path, content=b"b", headers={"If-None-Match": "*"}).status_code == 412
    assert http.post(path, content=b"b", headers={"If-None-Match": "*"}).status_code == 412
    assert http.post(path, content=b"b", headers={"If-Match": etag}).status_code == 409
    assert http.put(path, content=b"b", headers={"If-Match": other}).status_code == 412
    assert http.put(path, content=b"b", headers={"If-None-Match": etag}).status_code == 412
    assert http.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert http.get(path, headers={"If-Match": other}).status_code == 412
    assert http.put(path, content=b"b", headers={"If-Match": f"{other}, {etag}"}).status_code == 200
    assert http.delete(path, headers={"If-Match": etag}).status_code == 412
    assert http.delete(path, headers={"If-Match": "*"}).status_code == 204
    assert http.delete(path, headers={"If-Match": "*"}).status_code == 412


def test_times_are_conditions_too(http: httpx.Client) -> None:
    path = f"/store/{fresh()}"
    http.post(path, content=b"timed")
    at = http.get(path).headers["Last-Modified"]
    before = "Thu, 01 Jan 1970 00:00:00 GMT"

    assert http.get(path, headers={"If-Modified-Since": at}).status_code == 304
    assert http.get(path, headers={"If-Modified-Since": before}).status_code == 200
    assert http.delete(path, headers={"If-Unmodified-Since": before}).status_code == 412
    assert http.delete(path, headers={"If-Unmodified-Since": at}).status_code == 204


def test_a_version_is_read_as_long_as_it_is_kept(http: httpx.Client) -> None:
    path = f"/store/{fresh()}"
    http.post(path, content=b"first")
    http.put(path, content=b"second")

    assert http.get(path, params={"version": 2}).content == b"second"
    assert http.get(path, params={"version": 99}).status_code == 404
    assert http.get(path, params={"version": "x"}).status_code == 400
    history = http.get(f"{path}?history").json()
    assert [step["version"] for step in history["transitions"] if step["state"] == "ok"] == [2, 1]
    versions = http.get(f"{path}?versions").json()["versions"]
    assert versions[0]["version"] == 2


def test_names_are_listed_by_prefix_and_page_by_page(http: httpx.Client) -> None:
    top = fresh()
    names = [f"{top}/a", f"{top}/b/1", f"{top}/b/2", f"{top}/c"]
    for name in names:
        http.post(f"/store/{name}", content=b"x", headers={"Blob-Labels": f"last={name[-1]}"})

    def listed(**query: str | int) -> tuple[list[str], list[str], str | None]:
        page = http.get("/store", params={"prefix": f"{top}/", **query}).json()
        return [row["name"] for row in page["names"]], page.get("prefixes", []), page.get("cursor")

    assert listed() == (names, [], None)
    assert listed(delimiter="/")[:2] == ([names[0], names[3]], [f"{top}/b/"])
    assert listed(start_after=names[1])[0] == names[2:]
    assert listed(label="last=c")[0] == [names[3]]
    first, _, cursor = listed(limit=3)
    assert cursor is not None
    assert first + listed(limit=3, cursor=cursor)[0] == names
    assert http.get("/store", params={"limit": 0}).status_code == 400


def test_large_bytes_go_under_a_name_and_come_back_in_ranges(http: httpx.Client) -> None:
    path, data = f"/store/{fresh()}", secrets.token_bytes(3 * 1024 * 1024)

    made = http.post(path, content=data)
    part = http.get(path, headers={"Range": "bytes=-1000000", "If-Range": made.headers["ETag"]})

    assert made.status_code == 201
    assert (part.status_code, part.content) == (206, data[-1_000_000:])
    assert http.get(path).content == data


@pytest.mark.parametrize("size", [5, 2_000_000])
def test_a_name_is_read_though_its_blob_was_deleted_by_the_digest(
    http: httpx.Client, deployment: Deployment, size: int
) -> None:
    path, data = f"/store/{fresh()}", secrets.token_bytes(size)
    http.post(path, content=data)
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as client:
        assert client.delete(digest_of(data))

    assert http.get(path).content == data
    assert http.get(path, headers={"Range": "bytes=3-4"}).content == data[3:5]
    assert http.get(f"/blobs/{digest_of(data)}").status_code == 404


@pytest.mark.parametrize("size", [5, 2_000_000])
def test_by_a_digest_without_its_bytes_a_name_gets_nothing(http: httpx.Client, size: int) -> None:
    data, new, old = secrets.token_bytes(size), f"/store/{fresh()}", f"/store/{fresh()}"
    stored = http.post(f"/store/{fresh()}", content=data)
    said = {"Repr-Digest": stored.headers["Repr-Digest"]}
    http.post(old, content=b"old")

    assert http.post(new, content=bytes(size), headers=said).status_code == 400
    assert http.put(old, content=bytes(size), headers=said).status_code == 400

    assert http.get(new).status_code == 404
    assert http.get(old).content == b"old"
    assert http.put(old, content=data, headers=said).status_code == 200
    assert http.get(old).content == data


def test_what_arrives_damaged_is_not_stored(http: httpx.Client) -> None:
    path = f"/store/{fresh()}"
    wrong = {"Repr-Digest": "sha-256=:" + "A" * 43 + "=:"}

    assert http.post(path, content=b"x", headers=wrong).status_code == 400
    assert http.get(path).status_code == 404


def test_a_time_is_no_proof_that_the_rest_is_of_the_same_version(http: httpx.Client) -> None:
    http.post("/store/replaced", content=b"the first version")
    changed = http.put("/store/replaced", content=b"another version")
    had = http.get("/store/replaced").headers["Last-Modified"]

    rest = http.get("/store/replaced", headers={"Range": "bytes=4-", "If-Range": had})

    assert changed.status_code == 200
    assert (rest.status_code, rest.content) == (200, b"another version")


def test_of_a_condition_on_several_lines_all_lines_count(http: httpx.Client) -> None:
    http.post("/store/twice", content=b"old")
    tag = http.head("/store/twice").headers["ETag"]

    def status(name: str) -> int:
        lines = [(name, '"another"'), (name, tag)]
        return http.get("/store/twice", headers=lines).status_code

    assert (status("If-None-Match"), status("If-Match")) == (304, 200)
    lines = [("If-None-Match", '"another"'), ("If-None-Match", tag)]
    assert http.put("/store/twice", content=b"new", headers=lines).status_code == 412
