"""Resumable uploads over HTTP: any gateway goes on with any upload, from the exact byte."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import httpx
import pytest
from tests.client.test_client import digest_of
from tests.contracts.blob_store import some_bytes
from tests.deployment import Deployment, deployed
from tests.gateway.balancer import balanced
from tests.gateway.conftest import serving
from tests.js.scripts import run_script_here
from tusclient.client import TusClient

from holdfast.client import connect, connect_sync
from holdfast.client.puts.opened_upload import OpenedUpload, look

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from holdfast.client import SyncClient
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

CHUNK: Final = 100_000
DATA: Final = some_bytes(14 * CHUNK + 4321)
TUS: Final = {"Tus-Resumable": "1.0.0"}
OCTETS: Final = {**TUS, "Content-Type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def deployment(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """Two workers."""
    with Deployment(nats_server.url) as deployment:
        deployment.start("one", "two")
        yield deployment


@pytest.fixture(scope="module")
def gateways(deployment: Deployment) -> Iterator[tuple[str, str]]:
    """Two of them."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(serving(deployment)) for _ in range(2))
        yield first, second


@pytest.fixture(scope="module")
def url(gateways: tuple[str, str]) -> str:
    """One of them."""
    return gateways[0]


@pytest.fixture
def holdfast(deployment: Deployment) -> Iterator[SyncClient]:
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as client:
        yield client


def create(http: httpx.Client, length: int, path: str = "/uploads", **headers: str) -> str:
    """The path of a new upload."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    made = http.post(path, headers={**TUS, "Upload-Length": str(length), **named})
    assert made.status_code == 201, made.text
    return made.headers["Location"]


def patch(http: httpx.Client, path: str, offset: int, data: bytes, **more: str) -> httpx.Response:
    headers = {**OCTETS, "Upload-Offset": str(offset)}
    headers |= {name.replace("_", "-"): text for name, text in more.items()}
    return http.patch(path, headers=headers, content=data)


def offset_of(http: httpx.Client, path: str) -> int:
    found = http.head(path, headers=TUS)
    assert found.status_code == 200
    assert found.headers["Cache-Control"] == "no-store"
    return int(found.headers["Upload-Offset"])


def test_chunks_go_round_robin_through_two_gateways(
    gateways: tuple[str, str], holdfast: SyncClient
) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(httpx.Client(base_url=gateway, trust_env=False, timeout=60))
            for gateway in gateways
        ]
        turns = itertools.cycle(clients)
        path = create(next(turns), len(DATA))
        answers = []
        for offset in range(0, len(DATA), CHUNK):
            assert offset_of(next(turns), path) == offset
            answer = patch(next(turns), path, offset, DATA[offset : offset + CHUNK])
            assert answer.status_code == 204
            assert answer.headers["Upload-Offset"] == str(min(offset + CHUNK, len(DATA)))
            answers.append(answer)
        assert offset_of(next(turns), path) == len(DATA)

    assert answers[-1].headers["Content-Location"] == f"/blobs/{digest_of(DATA)}"
    assert holdfast.get(digest_of(DATA)) == DATA


@pytest.mark.long
def test_an_upload_outlives_its_worker_in_a_store_on_a_disk(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    with (
        deployed(nats_server.url, "one", "two", store=f"disk://{tmp_path}/store") as deployment,
        serving(deployment) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as http,
        connect_sync(servers=deployment.url, prefix=deployment.prefix) as client,
    ):
        path = create(http, len(DATA))
        for offset in range(0, 9 * CHUNK, CHUNK):
            patch(http, path, offset, DATA[offset : offset + CHUNK]).raise_for_status()
        deployment.kill("one")
        assert offset_of(http, path) == 9 * CHUNK
        patch(http, path, 9 * CHUNK, DATA[9 * CHUNK : 10 * CHUNK]).raise_for_status()
        deployment.start("one")
        deployment.kill("two")
        assert offset_of(http, path) == 10 * CHUNK
        patch(http, path, 10 * CHUNK, DATA[10 * CHUNK :]).raise_for_status()

        assert client.get(digest_of(DATA)) == DATA


async def send_without_end(deployment: Deployment, path: str, data: bytes) -> None:
    """As a gateway that dies when all bytes of the upload at ``path`` are stored."""

    async def blocks() -> AsyncIterator[bytes]:
        yield data

    id_ = path.removeprefix("/uploads/").partition("?")[0]
    async with await connect(deployment.config.nats, prefix=deployment.prefix) as client:
        upload = await OpenedUpload.find(client.requester, await look(client.requester, id_))
        assert isinstance(upload, OpenedUpload)
        await upload.send(blocks())


def test_all_bytes_are_told_only_once_they_are_a_blob(
    http: httpx.Client, deployment: Deployment, holdfast: SyncClient
) -> None:
    path = create(http, 5, "/uploads?name=ended/later")
    asyncio.run(send_without_end(deployment, path, b"01234"))

    told = http.head(path, headers=TUS)

    assert told.headers["Upload-Offset"] == "5"
    assert told.headers["ETag"] == f'"{digest_of(b"01234")}"'
    assert holdfast.names.get("ended/later") == b"01234"


def test_a_body_that_breaks_off_is_kept_as_far_as_it_came(http: httpx.Client) -> None:
    path = create(http, len(DATA))

    def broken() -> Iterator[bytes]:
        yield DATA[:700_001]
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        http.patch(path, headers={**OCTETS, "Upload-Offset": "0"}, content=broken())

    offset = offset_of(http, path)
    for _ in range(600):  # what it had received may still be on its way
        if (again := offset_of(http, path)) == 700_001:
            break
        offset = again
    assert offset_of(http, path) == 700_001, offset
    assert patch(http, path, 700_001, DATA[700_001:]).headers["ETag"] == f'"{digest_of(DATA)}"'


def test_bytes_that_do_not_go_on_where_the_upload_ended_are_refused(http: httpx.Client) -> None:
    path = create(http, 10)
    assert patch(http, path, 0, b"01234").status_code == 204

    for offset in (0, 4, 6):
        answer = patch(http, path, offset, b"x")
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (409, "5")
    assert patch(http, path, 5, b"567890").status_code == 413
    assert http.patch(path, headers={**TUS, "Upload-Offset": "5"}, content=b"5").status_code == 415
    assert patch(http, path, 5, b"56789").status_code == 204
    assert patch(http, path, 10, b"").status_code == 204
    assert patch(http, path, 9, b"9").status_code == 409


def test_an_upload_begins_with_its_first_bytes_or_all(http: httpx.Client) -> None:
    headers = {**OCTETS, "Upload-Length": "5"}

    whole = http.post("/uploads", headers=headers, content=b"01234")
    some = http.post("/uploads", headers=headers, content=b"01")
    none = http.post("/uploads", headers={**TUS, "Upload-Length": "0"})

    assert (whole.status_code, whole.headers["ETag"]) == (201, f'"{digest_of(b"01234")}"')
    assert some.headers["Upload-Offset"] == "2"
    assert patch(http, some.headers["Location"], 2, b"234").headers["ETag"] == whole.headers["ETag"]
    assert none.headers["ETag"] == f'"{digest_of(b"")}"'


def test_an_upload_is_of_a_name_which_has_it_at_the_end(
    http: httpx.Client, holdfast: SyncClient
) -> None:
    media = base64.b64encode(b"image/png").decode()
    metadata = f"filename {base64.b64encode(b'cat.png').decode()},filetype {media},empty"
    path = create(http, 5, "/uploads?name=tus/a%20b", Upload_Metadata=metadata)
    assert http.head(path, headers=TUS).headers["Upload-Metadata"] == metadata

    assert patch(http, path, 0, b"01234").status_code == 204

    assert holdfast.names.get("tus/a b") == b"01234"
    assert holdfast.names.stat("tus/a b").type == "image/png"
    headers = {**TUS, "Upload-Length": "2"}
    assert http.post("/uploads?name=tus/a%20b", headers=headers).status_code == 409
    again = create(http, 2, "/uploads?name=tus/a%20b&replace=true")
    assert patch(http, again, 0, b"56").status_code == 204
    assert holdfast.names.get("tus/a b") == b"56"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_a_body_with_another_checksum_is_not_kept(http: httpx.Client, algorithm: str) -> None:
    path = create(http, 10)
    right = base64.b64encode(hashlib.new(algorithm, b"01234").digest()).decode()

    spoilt = patch(http, path, 0, b"0123x", Upload_Checksum=f"{algorithm} {right}")
    assert (spoilt.status_code, offset_of(http, path)) == (460, 0)
    kept = patch(http, path, 0, b"01234", Upload_Checksum=f"{algorithm} {right}")
    assert (kept.status_code, offset_of(http, path)) == (204, 5)
    assert patch(http, path, 5, b"5", Upload_Checksum=f"crc9 {right}").status_code == 400


def test_an_upload_that_is_given_up_is_gone(http: httpx.Client) -> None:
    path = create(http, 10)
    patch(http, path, 0, b"01234")

    assert http.delete(path, headers=TUS).status_code == 204

    assert http.head(path, headers=TUS).status_code == 404
    assert patch(http, path, 5, b"5").status_code == 404


def test_nobody_goes_on_with_an_upload_by_its_id_alone(http: httpx.Client) -> None:
    path = create(http, 10)
    plain, _, secret = path.partition("?secret=")

    others = ["", "?secret=", f"?secret={secret[:-1]}", f"?secret={'0' * 32}"]
    for other in (
        *(plain + other for other in others),
        f"/uploads/x?secret={secret}",
        "/uploads/é",
    ):
        assert http.head(other, headers=TUS).status_code == 404
        assert http.delete(other, headers=TUS).status_code == 404
    assert offset_of(http, path) == 0


def test_what_is_offered_is_told_and_every_answer_says_which_tus_it_is(http: httpx.Client) -> None:
    offered = http.options("/uploads").headers
    assert offered["Tus-Version"] == "1.0.0"
    assert set(offered["Tus-Extension"].split(",")) == {
        *("creation", "creation-with-upload", "checksum", "expiration", "termination")
    }
    path = create(http, 10)
    assert "Upload-Expires" in patch(http, path, 0, b"0").headers
    answers = [http.head(path, headers=TUS), http.head("/uploads/none", headers=TUS)]
    assert {answer.headers["Tus-Resumable"] for answer in answers} == {"1.0.0"}
    other = http.head(path, headers={"Tus-Resumable": "0.2.2"})
    assert (other.status_code, other.headers["Tus-Version"]) == (412, "1.0.0")
    assert http.head(path).status_code == 412


@pytest.mark.parametrize("length", ["", "-1", "1e3", "NaN", "9" * 40, str(2**61), "٣"])
def test_a_length_that_is_none_is_refused(http: httpx.Client, length: str) -> None:
    headers = {**TUS, "Upload-Length": length.encode()}

    answer = http.post("/uploads", headers=headers)  # type: ignore[arg-type]

    assert answer.status_code in {400, 413}


@pytest.mark.parametrize(
    "metadata", ["filetype a", "filetype /w==", "filetype w6k=", "k " + "A" * 4000]
)
def test_metadata_that_are_none_are_refused(http: httpx.Client, metadata: str) -> None:
    headers = {**TUS, "Upload-Length": "1", "Upload-Metadata": metadata}

    assert http.post("/uploads", headers=headers).status_code == 400


# --- other programs ---


def test_tuspy_uploads_through_two_gateways(
    gateways: tuple[str, str], holdfast: SyncClient
) -> None:
    with balanced(*gateways) as url:
        client = TusClient(f"{url}/uploads?name=by/tuspy")
        uploader = client.uploader(
            file_stream=io.BytesIO(DATA),
            chunk_size=CHUNK,
            metadata={"filename": "data"},
            upload_checksum=True,
        )

        uploader.upload(stop_at=5 * CHUNK)
        other = client.uploader(file_stream=io.BytesIO(DATA), chunk_size=CHUNK, url=uploader.url)
        assert other.offset == 5 * CHUNK
        other.upload()

    assert holdfast.names.get("by/tuspy") == DATA


def test_tus_js_client_uploads_through_two_gateways(
    gateways: tuple[str, str], holdfast: SyncClient, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)

    with balanced(*gateways) as url:
        endpoint = f"{url}/uploads?name=by/tus-js"
        seen = run_script_here("tus_upload.mjs", endpoint, str(path), str(CHUNK))

    assert seen == {"chunks": 3, "done": True}
    assert holdfast.names.get("by/tus-js") == DATA
    assert holdfast.names.stat("by/tus-js").type == "text/plain"
