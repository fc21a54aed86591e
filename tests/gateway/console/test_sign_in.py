"""Sessions of the console: a token begins one, and what it may not, no page of it shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx
import pytest
from tests.deployment import Deployment
from tests.gateway.conftest import serving
from tests.gateway.console.visitor import Page, PageForm, Visitor
from tests.ports import free_ports

from holdfast.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

TOKEN: Final = re.compile(r"hf_[0-9a-f]{12}_[\w-]+")


class Guarded(NamedTuple):
    """A gateway with tokens, in front of a pool that stores nothing yet."""

    url: str
    tokens: Path
    deployment: Deployment

    def token(self, capture: pytest.CaptureFixture[str], *scopes: str) -> str:
        """A token for ``scopes``; the gateway may log its last request among what is printed."""
        capture.readouterr()
        assert main(["token", "create", *scopes, "--file", str(self.tokens)]) == 0
        (token,) = TOKEN.findall(capture.readouterr().out)
        return str(token)


@pytest.fixture(scope="module")
def guarded(
    nats_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    tokens = tmp_path_factory.mktemp("guarded") / "tokens"
    assert main(["token", "create", "read:/nothing", "--file", str(tokens)]) == 0
    with Deployment(nats_server.url) as deployment:
        deployment.start("one")
        with serving(deployment, tokens=str(tokens)) as url:
            yield Guarded(url, tokens, deployment)


@pytest.fixture
def visitor(guarded: Guarded) -> Iterator[Visitor]:
    with Visitor(guarded.url) as visitor:
        yield visitor


def signed_in(visitor: Visitor, token: str, path: str = "/console", status: int = 200) -> Page:
    form = visitor.open(path, 401).form("/sign-in")
    return visitor.send(form, status, token=token)


def test_who_is_not_known_is_asked_for_a_token_and_then_sees_what_was_asked_for(
    guarded: Guarded, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    page = signed_in(visitor, guarded.token(capsys, "read:/"), "/console/snapshots?state=ok")

    assert page.answer.url.path == "/console/snapshots"
    assert page.answer.url.query == b"state=ok"


@pytest.mark.parametrize(
    "path", ["/console", "/console/snapshots/x/raw", "/console/names/one?name=x"]
)
def test_a_page_tells_nobody_anything_without_a_token(visitor: Visitor, path: str) -> None:
    assert "Sign in" in visitor.open(path, 401).text


@pytest.mark.parametrize("token", ["", "nonsense", "hf_000000000000_secret", "\r\nSet-Cookie: x=y"])
def test_a_wrong_token_is_refused(visitor: Visitor, token: str) -> None:
    assert "not valid" in signed_in(visitor, token, status=401).text


def test_the_cookie_of_a_session_is_for_the_console_of_this_site_alone(
    guarded: Guarded, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    token = guarded.token(capsys, "admin:/")
    form = visitor.open("/console", 401).form("/sign-in")
    answer = visitor.http.post(
        form.action, data={**form.fields, "token": token}, follow_redirects=False
    )

    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/console" in cookie
    shown = {"Cookie": f"holdfast_session={token}"}
    assert httpx.get(f"{guarded.url}/snapshots", headers=shown, timeout=60).status_code == 401
    assert httpx.get(f"{guarded.url}/console", headers=shown, timeout=60).status_code == 200


@pytest.mark.parametrize(
    "then",
    [
        "https://evil.example/",
        "//evil.example/console",
        "///console.evil.example/x",
        "////console",
        "/console.evil.example",
        "/store/x",
        "/console\r\nX: y",
        "http://[",
        "//%5B",
    ],
)
def test_signing_in_leads_to_no_other_site(
    guarded: Guarded, visitor: Visitor, capsys: pytest.CaptureFixture[str], then: str
) -> None:
    form = visitor.open("/console", 401).form("/sign-in")
    fields = {**form.fields, "token": guarded.token(capsys, "read:/"), "then": then}

    answer = visitor.http.post(form.action, data=fields, follow_redirects=False)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/console")
    asked = visitor.http.get("/console/sign-in", params={"then": then})
    assert Page(asked).form("/sign-in").fields["then"] == "/console"


def test_a_session_may_what_its_token_may(
    guarded: Guarded, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = guarded.token(capsys, "read:/snapshots/blog:")
    signed_in(visitor, mine, "/console/snapshots?app=blog")
    page = visitor.open("/console/snapshots?app=blog")

    visitor.open("/console/snapshots?app=shop", 403)
    visitor.open("/console/tokens", 403)
    visitor.open("/console/names", 403)
    visitor.send(page.form("/console/snapshots"), 403, app="blog")


def test_a_token_that_is_removed_ends_its_sessions(
    guarded: Guarded, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    token = guarded.token(capsys, "admin:/")
    page = signed_in(visitor, token, "/console/tokens")
    assert "yours" in page.text

    assert main(["token", "rm", token.split("_")[1], "--file", str(guarded.tokens)]) == 0

    assert "not valid" in visitor.open("/console/tokens", 401).text


def test_tokens_are_made_and_removed_here_where_their_file_is(
    guarded: Guarded, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    page = signed_in(visitor, guarded.token(capsys, "admin:/"), "/console/tokens")
    make = page.form("/tokens", scopes="")
    visitor.send(make, 400, scopes="nonsense")
    made = visitor.send(make, scopes="read:/store/\nread:/states", note="<b>", expires="90d")
    (token,) = TOKEN.findall(made.text)
    shown = {"Authorization": f"Bearer {token}"}

    assert httpx.get(f"{guarded.url}/store", headers=shown, timeout=60).status_code == 200
    assert httpx.get(f"{guarded.url}/snapshots", headers=shown, timeout=60).status_code == 403
    assert token not in visitor.open("/console/tokens").text

    sure = visitor.send(made.form("/tokens/remove", id=token.split("_")[1]))
    assert httpx.get(f"{guarded.url}/store", headers=shown, timeout=60).status_code == 200
    visitor.send(sure.form("/tokens/remove"))
    assert httpx.get(f"{guarded.url}/store", headers=shown, timeout=60).status_code == 401
    visitor.send(sure.form("/tokens/remove"), 404)


def test_what_needs_more_than_a_session_has_is_refused(
    guarded: Guarded, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = guarded.token(capsys, "write:/store/mine/", "read:/blobs/", "write:/state/x")
    signed_in(visitor, mine, "/console/names?prefix=mine/")
    form = visitor.open("/console/names/one?name=mine/x", 404).form("/names/link")

    def refused(path: str, **fields: str) -> None:
        visitor.send(PageForm(f"/console{path}", form.fields), 403, **fields)

    refused("/names/move?name=mine/x&to=theirs/x", do="copy")
    refused("/names/move?name=theirs/x&to=mine/x", do="copy")
    refused("/names/rules", do="set", sure="yes")
    refused("/blobs/verify")
    refused(f"/blobs/{'0' * 64}/delete", sure="yes")
    refused("/states/append?name=x", command="1")
    refused("/states/remove?name=x", sure="yes")
    refused("/collection", do="dry")
    refused("/purge?app=blog", typed="blog")
    refused("/tokens", scopes="admin:/")


def test_an_app_is_restored_in_the_console_only_by_who_may_restore_that_app(
    guarded: Guarded, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = guarded.token(capsys, "admin:/snapshots/blog:")
    page = signed_in(visitor, mine, "/console/snapshots?app=blog")
    proof = page.form("/sign-out").fields
    restore = PageForm(
        "/console/snapshots/blog:0190b2b4-7c5e-7aaa-8bbb-123456789abc/restore", proof
    )

    visitor.send(restore, 404, app="blog", mode="replace", do="dry")
    visitor.send(restore, 403, app="payments", mode="replace", do="dry")
    visitor.send(restore, 403, app="payments", mode="replace", do="restore", sure="yes")


def test_who_signs_out_is_not_known_any_more(
    guarded: Guarded, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    page = signed_in(visitor, guarded.token(capsys, "admin:/"))

    visitor.send(page.form("/sign-out"), 401)

    visitor.open("/console", 401)


def test_behind_a_proxy_pages_are_where_clients_reach_them(guarded: Guarded) -> None:
    (port,) = free_ports(1)
    own = f"http://127.0.0.1:{port}"
    public = "https://files.example/hf"
    with (
        serving(guarded.deployment, listen=f"127.0.0.1:{port}", public_url=public),
        Visitor(own) as visitor,
    ):
        root = visitor.http.get("/", follow_redirects=False)
        page = visitor.open("/console/names")

    assert root.headers["Location"] == "/hf/console"
    assert all(link.startswith(("/hf/", "#")) for link in page.links())
    assert f"{public}/store/a/name" in page.text
    cookie = page.answer.headers["Set-Cookie"].lower()
    assert "path=/hf/console" in cookie
    assert "secure" in cookie


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("/console/snapshots", "holdfast snapshot create"),
        ("/console/storage", "holdfast snapshot create"),
        ("/console/names", "curl --data-binary"),
        ("/console/names/rules", "holdfast name rules"),
        ("/console/blobs", "curl -T"),
        ("/console/states", "curl --json"),
        ("/console/tokens", "holdfast token create"),
    ],
)
def test_where_there_is_nothing_yet_it_says_what_to_type(
    guarded: Guarded,
    visitor: Visitor,
    capsys: pytest.CaptureFixture[str],
    path: str,
    typed: str,
) -> None:
    page = signed_in(visitor, guarded.token(capsys, "admin:/"), path)

    assert typed in visitor.ended(page).text
