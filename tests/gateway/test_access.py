"""Rights over HTTP: by tokens, by links, from this machine. Others learn nothing."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.session import get_session
from starlette.requests import ClientDisconnect
from tests.client.test_client import digest_of
from tests.deployment import Deployment
from tests.gateway.conftest import serving
from tests.ports import free_ports

from holdfast.cli import main
from holdfast.client import connect, connect_sync
from holdfast.domain.link_keys import read_keys
from holdfast.domain.sigv4 import LinkTarget, sign
from holdfast.gateway.guard import IS_GONE
from holdfast.gateway.link_gate import LinkGate
from holdfast.gateway.settings import GatewaySettings
from holdfast.protocol.names import NameRule
from holdfast.sources import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send

    from holdfast.client import SyncClient
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

PUBLIC: Final = "https://files.example:8443"
DATA: Final = b"what only some may have"
ABSENT: Final = "0" * 64
TOKEN: Final = re.compile(r"hf_[0-9a-f]{12}_[\w-]+")
FLIPPED_EVERY: Final = int(os.environ.get("FLIPPED_EVERY", "11"))
"""Of the bits of a link that are flipped: of 8 that follow each other a different one each time."""


class Site(NamedTuple):
    """A gateway with tokens and links, and what is needed to ask it."""

    url: str
    tokens: Path
    keys: Path
    holdfast: SyncClient
    deployment: Deployment

    def token(self, capture: pytest.CaptureFixture[str], *scopes: str) -> dict[str, str]:
        """The headers of a new token."""
        capture.readouterr()
        assert main(["token", "create", *scopes, "--file", str(self.tokens)]) == 0
        (token,) = TOKEN.findall(capture.readouterr().out)  # the gateway may log something, too
        return {"Authorization": f"Bearer {token}"}

    def reached(self, link: str) -> str:
        """``link`` where this gateway is: behind the public URL."""
        assert link.startswith(PUBLIC)
        return self.url + link.removeprefix(PUBLIC)

    def get(self, link: str, method: str = "GET", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return httpx.request(method, self.reached(link), headers=named, trust_env=False)


@pytest.fixture(scope="module")
def site(nats_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    keys, tokens, apps = directory / "keys", directory / "tokens", directory / "apps"
    (apps / "blog").mkdir(parents=True)
    (apps / "blog" / "first.md").write_bytes(DATA)
    (apps / "shop").mkdir()
    assert main(["link-key", "create", "spring", "--file", str(keys)]) == 0
    assert main(["token", "create", "read:/nothing", "--file", str(tokens)]) == 0
    with ExitStack() as stack:
        deployment = stack.enter_context(Deployment(nats_server.url))
        deployment.start("one", link_keys=str(keys), public_url=PUBLIC, apps=str(apps))
        (port,) = free_ports(1)
        stack.enter_context(
            serving(
                deployment,
                listen=f"127.0.0.1:{port}",
                public_url=PUBLIC,
                link_keys=str(keys),
                tokens=str(tokens),
            )
        )
        holdfast = stack.enter_context(
            connect_sync(servers=deployment.url, prefix=deployment.prefix)
        )
        yield Site(f"http://127.0.0.1:{port}", tokens, keys, holdfast, deployment)


@pytest.fixture
def digest(site: Site) -> str:
    return site.holdfast.put(DATA).digest


# --- tokens ---


def test_without_a_token_nobody_learns_whether_a_thing_is_there(site: Site, digest: str) -> None:
    answers = [
        httpx.request(method, f"{site.url}/blobs/{of}", headers=headers, content=b"")
        for of in (digest, ABSENT)
        for method in ("GET", "HEAD", "PUT")
        for headers in ({}, {"Authorization": "Bearer hf_a_b"}, {"Authorization": "Basic YTpi"})
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"].split()[0] for answer in answers} == {"Bearer"}
    bodies = {answer.text for answer in answers if answer.request.method == "GET"}
    assert not any(ABSENT in body or digest in body for body in bodies)


def test_no_path_says_anything_to_whoever_may_not(
    site: Site, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = site.token(capsys, "admin:/elsewhere/")
    site.holdfast.names.put("there", DATA)
    document = httpx.get(f"{site.url}/openapi.json", timeout=60).json()
    guarded = [
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "security" in operation
    ]
    assert len(guarded) > 40

    with httpx.Client(base_url=site.url, trust_env=False, timeout=60) as http:
        for method, path in guarded:
            for headers, status in (({}, 401), (other, 403)):
                answers = [
                    http.request(method, re.sub(r"\{\w+\}", known, path), headers=headers)
                    for known in (digest, "there", ABSENT)
                ]
                nameless = {400} if path == "/store" else set()
                assert answers[0].status_code in {status, *nameless}
                assert len({(answer.status_code, answer.text) for answer in answers}) == 1


def test_a_token_is_for_what_it_is_for(
    site: Site, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = site.token(capsys, "read:/blobs/")
    writer = site.token(capsys, "write:/blobs")
    other = site.token(capsys, "admin:/store/")

    def status(method: str, path: str, token: dict[str, str]) -> int:
        return httpx.request(method, site.url + path, headers=token, content=b"").status_code

    assert httpx.get(f"{site.url}/blobs/{digest}", headers=reader, timeout=60).content == DATA
    assert status("GET", f"/blobs/{ABSENT}", reader) == 404
    assert status("PUT", "/blobs", reader) == 403
    assert status("PUT", "/blobs", writer) == 201
    assert status("GET", f"/blobs/{digest}", writer) == 200
    assert {status("GET", f"/blobs/{of}", other) for of in (digest, ABSENT)} == {403}


def test_a_snapshot_is_compared_only_with_what_may_be_read_too(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = site.holdfast.snapshots.create("blog"), site.holdfast.snapshots.create("shop")
    token = site.token(capsys, "read:/snapshots/blog:")

    def status(path: str) -> int:
        return httpx.get(f"{site.url}/snapshots{path}", headers=token, timeout=60).status_code

    assert status(f"/{mine.key}/diff?from={mine.key}") == 200
    assert status(f"/{mine.key}/diff?from={other.key}") == 403
    assert status(f"/{mine.key}/diff?from={mine.key}&from={other.key}") == 403
    assert status(f"/{other.key}/files") == 403
    assert status("?app=blog") == 200
    assert status("?app=shop") == 403
    assert status("?app=blog&app=shop") == 403


def test_a_token_is_for_no_other_state_however_the_path_is_written(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.holdfast.states.save("secret", {"a": 1}, last_applied_index=0)
    reader = site.token(capsys, "read:/state/public/", "read:/log/public/")
    writer = site.token(capsys, "write:/state/public/", "write:/command/public/")

    def status(method: str, path: str, token: dict[str, str]) -> int:
        return httpx.request(method, site.url + path, headers=token, content=b"2").status_code

    assert status("GET", "/state/secret", reader) == 403
    assert status("GET", "/state/public%2Fnone", reader) == 404
    assert status("GET", "/state%2Fpublic/secret", reader) == 400
    assert status("GET", "/log%2Fpublic/secret", reader) == 400
    assert status("POST", "/state%2fpublic/secret", writer) == 400
    assert status("POST", "/command%2Fpublic/secret", writer) == 400
    assert status("POST", "/command/public/mine", writer) == 200


def test_a_token_is_for_no_other_file_however_the_path_is_written(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    key = site.holdfast.snapshots.create("blog").key
    token = site.token(capsys, f"read:/snapshots/{key}/files/public/")

    def status(path: str) -> int:
        return httpx.get(f"{site.url}/snapshots/{path}", headers=token, timeout=60).status_code

    assert status(f"{key}/files/first.md") == 403
    assert status(f"{key}/files/public/first.md") == 404
    assert status(f"{key}%2Ffiles/public/first.md") == 400
    assert status(f"{key}/files%2Fpublic/first.md") == 400


def test_a_token_that_is_removed_is_refused_at_once(
    site: Site, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    token = site.token(capsys, "read:/")
    url, id_ = f"{site.url}/blobs/{digest}", token["Authorization"].split("_")[1]
    assert httpx.get(url, headers=token, timeout=60).status_code == 200

    assert main(["token", "rm", id_, "--file", str(site.tokens)]) == 0

    answer = httpx.get(url, headers=token, timeout=60)
    assert answer.status_code == 401
    assert "invalid_token" in answer.headers["WWW-Authenticate"]
    assert main(["token", "ls", "--file", str(site.tokens)]) == 0
    assert id_ not in capsys.readouterr().out.splitlines()[-1]


def test_events_end_when_their_token_is_removed(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    token = site.token(capsys, "read:/log/")
    site.holdfast.states.append("followed", 1)

    with httpx.stream(
        "GET", f"{site.url}/log/followed?follow", headers=token, timeout=60
    ) as answer:
        lines = answer.iter_lines()
        assert "event: command" in lines
        id_ = token["Authorization"].split("_")[1]
        assert main(["token", "rm", id_, "--file", str(site.tokens)]) == 0
        site.holdfast.states.append("followed", 2)
        rest = list(lines)

    assert [line for line in rest if line.startswith("event: ")] == ["event: problem"]
    assert "the token is not valid" in "".join(rest)


@pytest.mark.parametrize(
    ("scope", "statuses"),
    [
        ("write:/snapshots/", (202, 403, 204)),
        ("write:/snapshots/blog:", (403, 403, 204)),
        ("admin:/snapshots/blog:", (403, 202, 204)),
        ("read:/snapshots/", (403, 403, 403)),
    ],
)
def test_snapshots_are_made_by_who_may_write_all_of_them_and_restored_by_who_may_admin_one(
    site: Site, capsys: pytest.CaptureFixture[str], scope: str, statuses: tuple[int, ...]
) -> None:
    key = site.holdfast.snapshots.create("blog").key
    token = site.token(capsys, scope)

    def status(method: str, path: str, **body: str | bool) -> int:
        url = f"{site.url}/snapshots{path}"
        return httpx.request(method, url, headers=token, json=body or None).status_code

    made = status("POST", "", app="blog")
    restored = status("POST", f"/{key}/restore", mode="replace", dry_run=True)
    forgotten = status("DELETE", f"/{key}")

    assert (made, restored, forgotten) == statuses


@pytest.mark.parametrize(
    ("scopes", "app", "status"),
    [
        (("admin:/snapshots/blog:",), "blog", 202),
        (("admin:/snapshots/blog:",), "shop", 403),
        (("admin:/snapshots/blog:",), "copy", 403),
        (("admin:/snapshots/blog:", "write:/snapshots/shop:"), "shop", 403),
        (("admin:/snapshots/blog:", "admin:/snapshots/shop:"), "shop", 202),
    ],
)
def test_a_snapshot_is_restored_only_into_an_app_that_may_be_restored_too(
    site: Site, capsys: pytest.CaptureFixture[str], scopes: tuple[str, ...], app: str, status: int
) -> None:
    key = site.holdfast.snapshots.create("blog").key
    token = site.token(capsys, *scopes)
    body = {"app": app, "mode": "replace", "dry_run": True}

    answer = httpx.post(f"{site.url}/snapshots/{key}/restore", headers=token, json=body, timeout=60)

    assert answer.status_code == status, answer.text


def test_a_page_of_a_blob_names_only_what_may_be_read(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "kept by several"
    data = f'"{text}"'.encode()
    names = site.holdfast.names
    names.set_rules([NameRule(prefix="kept/", keep_versions=2)])
    for whose in ("mine", "theirs"):
        names.put(f"kept/{whose}/now", data)
        names.put(f"kept/{whose}/before", data)
        names.put(f"kept/{whose}/before", b"something else")
        site.holdfast.states.save(f"kept/{whose}", text, last_applied_index=0)

    def named(*scopes: str) -> tuple[set[str], str]:
        headers = site.token(capsys, *scopes)
        url = f"{site.url}/console/blobs/{digest_of(data)}"
        page = httpx.get(url, headers=headers, timeout=60).text
        told = re.search(r"([0-9]) more that your token may not read", page)
        return set(re.findall(r"[a-z0-9 ]*kept/[a-z/]+(?=<)", page)), told[1] if told else "0"

    mine = {"kept/mine/now", "version 1 of kept/mine/before"}
    theirs = {one.replace("mine", "theirs") for one in mine}
    states = {"state kept/mine", "state kept/theirs"}
    assert named("read:/") == (mine | theirs | states, "0")
    assert named("read:/blobs/", "read:/store/kept/mine/") == (mine, "4")
    assert named("read:/blobs/", "read:/state/") == (states, "4")
    assert named("read:/blobs/") == (set(), "6")


def test_a_path_with_one_slash_too_many_leads_nowhere(site: Site) -> None:
    answers = [
        httpx.request(method, f"{site.url}{path}", headers={"Host": "evil.example"})
        for method, path in (("PUT", "/blobs/"), ("GET", "/snapshots/"), ("GET", "/states/"))
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert not any("Location" in answer.headers for answer in answers)


def test_everybody_may_ask_whether_the_gateway_lives(site: Site) -> None:
    assert httpx.get(f"{site.url}/healthz", timeout=60).status_code == 200


# --- this machine ---


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"Host": "localhost:7777"}, 404),
        ({"Host": "evil.example"}, 403),
        ({"Host": "files.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"X-Forwarded-For": "203.0.113.9"}, 401),
        ({"Forwarded": "for=203.0.113.9"}, 401),
    ],
)
def test_without_tokens_only_this_machine_itself_may(
    http: httpx.Client, headers: dict[str, str], status: int
) -> None:
    assert http.get(f"/blobs/{ABSENT}", headers=headers).status_code == status


# --- links ---


def test_a_link_is_followed_without_a_token(site: Site, digest: str) -> None:
    link = site.holdfast.link(digest, 60).url

    whole, part = site.get(link), site.get(link, Range="bytes=5-8")

    assert (whole.status_code, whole.content) == (200, DATA)
    assert (part.status_code, part.content) == (206, DATA[5:9])


@pytest.mark.fault("H01")
def test_a_link_is_for_one_method_and_one_thing(site: Site, digest: str) -> None:
    link = site.holdfast.link(digest, 60).url
    other = digest_of(b"other")
    site.holdfast.put(b"other")

    assert site.get(link, "PUT").status_code == 403
    assert site.get(link, "DELETE").status_code == 403
    assert site.get(link.replace(digest, other)).status_code == 403
    assert site.get(link + "&version=1").status_code == 403
    assert httpx.get(site.reached(link).partition("?")[0], timeout=60).status_code == 401


@pytest.mark.fault("H01")
@pytest.mark.slow
def test_a_link_with_one_bit_flipped_anywhere_is_403(site: Site, digest: str) -> None:
    """But for what no client sends: with ``#`` the rest of a URL stays at home."""
    target = site.holdfast.link(digest, 60).url.removeprefix(PUBLIC)
    statuses = {}
    with httpx.Client(base_url=site.url, trust_env=False, timeout=60) as client:
        assert client.get(target).status_code == 200
        for bit in range(0, len(target) * 8, FLIPPED_EVERY):
            data = bytearray(target.encode())
            data[bit // 8] ^= 1 << bit % 8
            if not all(0x21 <= byte < 0x7F and byte != ord("#") for byte in data[1:]):
                continue
            if data[0] != ord("/"):
                continue
            answer = client.send(httpx.Request("GET", site.url, extensions={"target": bytes(data)}))
            statuses[bytes(data)] = answer.status_code

    assert len(statuses) > 1500 // FLIPPED_EVERY
    assert {target: status for target, status in statuses.items() if status != 403} == {}


@pytest.mark.fault("H02")
def test_of_a_link_that_was_right_it_is_said_that_it_has_expired(site: Site, digest: str) -> None:
    key = read_keys(site.keys.read_bytes())[0]
    then = datetime.now(UTC) - timedelta(seconds=61)  # noqa: TID251  (as the gateway does)
    target = LinkTarget(method="GET", host=PUBLIC.partition("//")[2], path=f"/blobs/{digest}")

    def link(secret: str) -> str:
        query = sign(target, key_id=key.id, secret=secret, now=then, seconds=60)
        return f"{PUBLIC}{target.path}?{query}"

    expired, wrong = site.get(link(key.secret)), site.get(link("of somebody else"))

    assert (expired.status_code, wrong.status_code) == (403, 403)
    assert "expired" in expired.json()["detail"]
    assert "expired" not in wrong.json()["detail"]


def signed_by_botocore(method: str, path: str, id_: str, secret: str, *, expires: int = 60) -> str:
    request = AWSRequest(method, PUBLIC + path)
    signer = S3SigV4QueryAuth(Credentials(id_, secret), "s3", "eu-central-1", expires=60)
    signer.add_auth(request)
    return str(request.prepare().url)


def test_a_link_that_botocore_makes_is_followed(site: Site, digest: str) -> None:
    key = read_keys(site.keys.read_bytes())[0]

    link = signed_by_botocore("GET", f"/blobs/{digest}", key.id, key.secret)

    assert site.get(link).content == DATA
    assert site.get(signed_by_botocore("GET", f"/blobs/{digest}", key.id, "x")).status_code == 403


def test_what_the_s3_client_of_boto3_presigns_is_followed(site: Site, digest: str) -> None:
    key = read_keys(site.keys.read_bytes())[0]
    s3 = get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=PUBLIC,
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        config=Config(signature_version="s3v4"),
    )
    drop = {"Bucket": "store", "Key": "drop/é +&.jpg"}
    site.holdfast.names.create(drop["Key"], b"a former one")

    def presigned(operation: str, **parameters: str) -> str:
        return s3.generate_presigned_url(operation, Params=parameters, ExpiresIn=60)  # type: ignore[no-any-return]

    blob = presigned("get_object", Bucket="blobs", Key=digest)
    put = presigned("put_object", **drop, ContentType="image/jpeg")
    got = presigned("get_object", **drop)

    assert site.get(blob).content == DATA
    typed = {"Content-Type": "image/jpeg"}
    assert (
        httpx.put(site.reached(put), content=b"cat", headers=typed, timeout=60).status_code == 200
    )
    assert httpx.put(site.reached(put), content=b"cat", timeout=60).status_code == 403
    assert site.get(got).content == b"cat"


def test_a_link_for_one_use_serves_the_whole_once_and_ranges_after_that(
    site: Site, digest: str
) -> None:
    link = site.holdfast.link(digest, 60, single_use=True).url

    assert site.get(link).content == DATA
    assert site.get(link).status_code == 403
    assert site.get(link, Range="bytes=5-").content == DATA[5:]


def test_a_link_for_one_use_is_used_by_the_first_bytes_and_by_no_other_answer(
    site: Site, digest: str
) -> None:
    link = site.holdfast.link(digest, 60, single_use=True).url

    assert site.get(link, If_None_Match=f'"{digest}"').status_code == 304
    assert site.get(link, Range="bytes=9999-").status_code == 416
    assert site.get(link).content == DATA
    assert site.get(link, If_None_Match=f'"{digest}"').status_code == 304
    again = site.get(link)
    assert (again.status_code, again.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("is_gone", [True, False])
async def test_who_is_gone_before_the_first_bytes_has_not_used_a_link(
    site: Site, digest: str, *, is_gone: bool
) -> None:
    link = urlsplit(site.holdfast.link(digest, 60, single_use=True).url)
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": link.path.encode(),
        "query_string": link.query.encode(),
        "headers": [(b"host", link.netloc.encode())],
        IS_GONE: lambda: is_gone,
    }
    sent = []

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await send({"type": "http.response.start", "status": 200})

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def sending(message: Message) -> None:
        sent.append(message)

    async with await connect(servers=site.deployment.url, prefix=site.deployment.prefix) as client:
        settings = GatewaySettings(public_url=PUBLIC, link_keys=str(site.keys))
        gate = LinkGate(answer, client=client, settings=settings, clock=utc_now)
        await gate(scope, nothing, sending)

    assert len(sent) == (0 if is_gone else 1)
    assert site.get(link.geturl()).status_code == (200 if is_gone else 403)


def test_of_many_at_once_a_link_for_one_use_serves_one(site: Site, digest: str) -> None:
    link = site.holdfast.link(digest, 60, single_use=True).url

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(site.get, [link] * 8))

    assert sorted(answer.status_code for answer in answers) == [200] + 7 * [403]


def test_a_link_for_an_upload_takes_what_it_is_for_once(site: Site) -> None:
    data = b"uploaded by a link"
    link = site.holdfast.link(digest_of(data), 60, method="PUT").url

    first = httpx.put(site.reached(link), content=data, timeout=60)
    again = httpx.put(site.reached(link), content=data, timeout=60)

    assert (first.status_code, again.status_code) == (201, 403)
    assert site.holdfast.get(digest_of(data)) == data


@pytest.mark.parametrize("name", ["cats/é ?&=#.jpg", "a/../b", "a\nb"])
def test_a_link_of_a_name_stays_with_the_blob_that_it_was_made_for(site: Site, name: str) -> None:
    site.holdfast.names.put(name, b"first")
    bound, latest = (
        site.holdfast.names.link(name, 60, latest=latest).url for latest in (False, True)
    )
    assert [site.get(link).content for link in (bound, latest)] == [b"first"] * 2

    site.holdfast.names.replace(name, b"second")

    assert site.get(bound).status_code == 404
    assert site.get(latest).content == b"second"


def test_a_link_for_an_upload_creates_a_name_or_replaces_its_blob(site: Site) -> None:
    first, second = (
        site.reached(site.holdfast.names.link("drop/a b", 60, method="PUT").url) for _ in range(2)
    )
    assert httpx.put(first, content=b"one", timeout=60).status_code == 201
    assert httpx.put(second, content=b"two", timeout=60).status_code == 409

    late = site.reached(site.holdfast.names.link("drop/a b", 60, method="PUT").url)
    replaced = httpx.put(late, content=b"three", timeout=60)

    assert replaced.status_code == 200
    assert site.holdfast.names.get("drop/a b") == b"three"


@pytest.mark.fault("H03")
def test_a_link_of_a_snapshot_is_followed_while_that_is_there(site: Site) -> None:
    record = site.holdfast.snapshots.create("blog")
    archive = site.holdfast.snapshots.link(record.key, 60, single_use=True).url
    file = site.holdfast.snapshots.link(record.key, 60, path="first.md").url

    assert site.get(file).content == DATA
    whole = site.get(archive)
    assert len(whole.content) == record.archive_size
    assert site.get(archive, Range="bytes=9-").content == whole.content[9:]
    assert site.get(archive).status_code == 403
    site.holdfast.snapshots.delete(record.key)
    assert site.get(file).status_code == 404


@pytest.mark.fault("H04")
def test_the_end_of_a_key_revokes_its_links(site: Site, digest: str) -> None:
    assert main(["link-key", "create", "summer", "--file", str(site.keys)]) == 0
    link = site.holdfast.link(digest, 60).url
    assert "summer" in link
    assert site.get(link).status_code == 200

    assert main(["link-key", "end", "summer", "--file", str(site.keys)]) == 0

    assert site.get(link).status_code == 403


def test_a_gateway_without_keys_takes_no_links(http: httpx.Client) -> None:
    answer = http.get(f"/blobs/{ABSENT}?X-Amz-Signature=00")

    assert answer.status_code == 403


def test_names_that_begin_like_parameters_of_links_are_names(http: httpx.Client) -> None:
    stored = http.post("/store", params={"name": "X-Amz-logs/Date=1"}, content=DATA)
    try:
        read = http.get("/store/X-Amz-logs/Date=1")
        listed = http.get("/store", params={"prefix": "X-Amz-"})
    finally:
        http.delete("/store/X-Amz-logs/Date=1")

    assert stored.status_code == 201
    assert read.content == DATA
    assert [row["name"] for row in listed.json()["names"]] == ["X-Amz-logs/Date=1"]


def test_curl_follows_a_link_and_goes_on_where_it_was_cut_off(site: Site, tmp_path: Path) -> None:
    data = b"".join(bytes([number % 251]) * 4096 for number in range(300))
    put = site.holdfast.put(data)
    link = site.reached(site.holdfast.link(put.digest, 60, single_use=True).url)
    target = tmp_path / "blob"

    subprocess.run(["curl", "-sS", "--max-filesize", "1", link, "-o", str(target)], check=False)
    target.write_bytes(data[:100_000])
    for program in (["curl", "-sS", "--fail", "-C", "-", "-o"], ["wget", "-q", "-c", "-O"]):
        subprocess.run([*program, str(target), link], check=True, timeout=60)
        assert target.read_bytes() == data
        target.write_bytes(data[:1_000_000])
