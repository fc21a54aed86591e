"""Blobs over HTTP: what comes back is what was put, whole, in part, or not at all."""

from __future__ import annotations

import base64
import hashlib
import secrets
from email import message_from_bytes
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

LARGE = secrets.token_bytes(5 * 1024 * 1024 + 7)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_header(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def put(http: httpx.Client, data: bytes, **headers: str) -> str:
    answer = http.put("/blobs", content=data, headers=headers)
    assert answer.status_code in {200, 201}, answer.text
    digest: str = answer.json()["digest"]
    return digest


@pytest.fixture(scope="session")
def large(url: str) -> str:
    """The digest of a blob that many windows hold."""
    import httpx

    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        return put(client, LARGE, **{"Content-Type": "text/html"})


@pytest.mark.parametrize("size", [0, 1, 262_144, 262_145, 1_000_000, 3_000_000])
def test_what_was_put_comes_back(http: httpx.Client, size: int) -> None:
    data = secrets.token_bytes(size)

    stored = http.put("/blobs", content=data, headers={"Content-Type": "image/png"})
    assert stored.status_code == 201
    assert stored.headers["Location"] == f"/blobs/{digest_of(data)}"
    answer = http.get(stored.headers["Location"])

    assert answer.status_code == 200
    assert answer.content == data
    assert answer.headers["Content-Length"] == str(size)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["ETag"] == stored.headers["ETag"] == f'"{digest_of(data)}"'
    assert answer.headers["Repr-Digest"] == stored.headers["Repr-Digest"] == as_header(data)
    assert "immutable" in answer.headers["Cache-Control"]


def test_what_is_stored_already_is_200_and_its_bytes_are_compared(http: httpx.Client) -> None:
    put(http, LARGE)

    again = http.put(f"/blobs/{digest_of(LARGE)}", content=LARGE)
    other = http.put(f"/blobs/{digest_of(LARGE)}", content=LARGE[:-1] + b"x")

    assert (again.status_code, again.json()["created"]) == (200, False)
    assert (other.status_code, other.json()["code"]) == (400, "invalid")


def test_a_body_without_a_length_is_stored(http: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for at in range(0, len(LARGE), 100_000):
            yield LARGE[at : at + 100_000]

    answer = http.put("/blobs", content=pieces())

    assert answer.json()["digest"] == digest_of(LARGE)


@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest"])
def test_bytes_with_another_digest_than_said_are_refused(http: httpx.Client, name: str) -> None:
    data = secrets.token_bytes(100)

    answer = http.put("/blobs", content=data, headers={name: as_header(b"other")})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert http.head(f"/blobs/{digest_of(data)}").status_code == 404


@pytest.mark.parametrize(
    "header", ["sha-256=abc", "sha-256=:!:", "sha-256=:AAAA:", "sha-256=:" + "A" * 44 + ":"]
)
def test_a_digest_that_is_none_is_refused(http: httpx.Client, header: str) -> None:
    assert http.put("/blobs", content=b"x", headers={"Repr-Digest": header}).status_code == 400


def test_other_algorithms_are_passed_over(http: httpx.Client) -> None:
    headers = {"Repr-Digest": f"md5=:AAAA:, {as_header(b'x')}, sha-512=:BBBB:"}

    assert http.put("/blobs", content=b"x", headers=headers).status_code in {200, 201}


def test_a_blob_can_be_asked_to_be_new(http: httpx.Client) -> None:
    data = secrets.token_bytes(10)
    path, new = f"/blobs/{digest_of(data)}", {"If-None-Match": "*"}

    assert http.put(path, content=data, headers=new).status_code == 201
    assert http.put(path, content=data, headers=new).status_code == 412


@pytest.mark.parametrize("digest", ["ab", "A" * 64, "g" * 64, "..%2f..%2fetc"])
def test_what_is_no_digest_names_no_blob(http: httpx.Client, digest: str) -> None:
    assert http.get(f"/blobs/{digest}").status_code in {400, 404}


def test_a_blob_that_is_not_there_is_404(http: httpx.Client) -> None:
    answer = http.get(f"/blobs/{'0' * 64}")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_head_has_the_headers_of_get_and_no_body(http: httpx.Client, large: str) -> None:
    head, get = http.head(f"/blobs/{large}"), http.get(f"/blobs/{large}")

    assert (head.status_code, head.content) == (200, b"")
    kept = {name: value for name, value in get.headers.items() if name != "date"}
    assert {name: value for name, value in head.headers.items() if name != "date"} == kept


@pytest.mark.fault("H05")
@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("0-0", 0, 1),
        ("-1", len(LARGE) - 1, len(LARGE)),
        ("5-", 5, len(LARGE)),
        ("524287-524289", 524_287, 524_290),
        ("1000000-4999999", 1_000_000, 5_000_000),
        ("0-18446744073709551616", 0, len(LARGE)),
    ],
)
def test_a_range_is_206(http: httpx.Client, large: str, asked: str, start: int, stop: int) -> None:
    answer = http.get(f"/blobs/{large}", headers={"Range": f"bytes={asked}"})

    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(LARGE)}"
    assert answer.headers["Content-Length"] == str(stop - start)
    assert answer.content == LARGE[start:stop]


@pytest.mark.fault("H05")
def test_several_ranges_come_as_parts(http: httpx.Client, large: str) -> None:
    answer = http.get(f"/blobs/{large}", headers={"Range": "bytes=-3,0-9,600000-1999999"})

    assert answer.status_code == 206
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    parts = message_from_bytes(head + answer.content).get_payload()
    assert isinstance(parts, list)
    assert [part["Content-Range"] for part in parts] == [  # type: ignore[index]
        f"bytes {len(LARGE) - 3}-{len(LARGE) - 1}/{len(LARGE)}",
        f"bytes 0-9/{len(LARGE)}",
        f"bytes 600000-1999999/{len(LARGE)}",
    ]
    assert LARGE[600_000:2_000_000] in answer.content


@pytest.mark.fault("H05")
@pytest.mark.parametrize("asked", [f"{len(LARGE)}-", "-0", ",".join(["0-0"] * 1000)])
def test_a_range_that_is_not_there_is_416(http: httpx.Client, large: str, asked: str) -> None:
    answer = http.get(f"/blobs/{large}", headers={"Range": f"bytes={asked}"})

    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(LARGE)}"


@pytest.mark.fault("H05")
@pytest.mark.parametrize("asked", ["9-3", "a-b", "", "5"])
def test_what_is_no_range_gets_all(http: httpx.Client, large: str, asked: str) -> None:
    answer = http.get(f"/blobs/{large}", headers={"Range": f"bytes={asked}"})

    assert (answer.status_code, answer.content == LARGE) == (200, True)


@pytest.mark.fault("H05")
def test_if_range_gives_a_range_of_the_same_bytes_only(http: httpx.Client, large: str) -> None:
    asked = {"Range": "bytes=0-9"}

    same = http.get(f"/blobs/{large}", headers=asked | {"If-Range": f'"{large}"'})
    other = http.get(f"/blobs/{large}", headers=asked | {"If-Range": '"other"'})
    weak = http.get(f"/blobs/{large}", headers=asked | {"If-Range": f'W/"{large}"'})

    assert [answer.status_code for answer in (same, other, weak)] == [206, 200, 200]


def test_only_get_has_ranges(http: httpx.Client, large: str) -> None:
    asked = [
        http.head(f"/blobs/{large}", headers={"Range": of}) for of in ("bytes=2-3", "bytes=-0")
    ]

    assert [answer.status_code for answer in asked] == [200, 200]
    assert {answer.headers["Content-Length"] for answer in asked} == {str(len(LARGE))}


def test_who_has_a_blob_is_told_so(http: httpx.Client, large: str) -> None:
    def status(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.get(f"/blobs/{large}", headers=named).status_code

    assert status(If_None_Match=f'"x", W/"{large}"') == 304
    assert status(If_None_Match='"x"') == 200
    assert status(If_Match='"x"') == 412
    assert status(If_Match=f'"x","{large}"') == 200
    assert status(If_Match="x") == 400


@pytest.mark.fault("H09")
def test_a_page_of_a_stranger_is_a_file_to_be_saved(http: httpx.Client) -> None:
    digest = put(http, b"<script>alert(1)</script>", **{"Content-Type": "text/html"})

    for headers in ({}, {"Range": "bytes=0-3"}, {"Range": "bytes=0-3,5-6"}):
        answer = http.get(f"/blobs/{digest}", headers=headers)

        assert answer.headers["Content-Disposition"].startswith("attachment;")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_encodings_and_parts_are_not_stored_as_if_they_were_all(http: httpx.Client) -> None:
    def status(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.put("/blobs", content=b"x", headers=named).status_code

    assert status(Content_Encoding="gzip") == 415
    assert status(Content_Range="bytes 0-0/2") == 400


@pytest.mark.parametrize("media_type", ["", "t\u00e9xt", "x" * 300])
def test_a_type_that_is_none_is_refused_or_unsaid(http: httpx.Client, media_type: str) -> None:
    headers = [(b"Content-Type", media_type.encode("latin-1"))]

    status = http.put("/blobs", content=b"typed", headers=headers).status_code

    assert status == (400 if media_type else 201)
