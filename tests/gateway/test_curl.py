"""The tables of the documents, typed in a shell: every command is answered as they say."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import pytest
from tests.deployment import Deployment
from tests.docs.tables import ROOT
from tests.gateway.conftest import serving
from tests.gateway.test_snapshots import ended
from tests.ports import free_ports

from holdfast.cli import main
from holdfast.client import connect_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.client import SyncClient
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

PAGES: Final = ("http.md", "links.md", "uploads.md")
ROW: Final = re.compile(r"^\| [^|]+ \| (`(?:curl|wget) .*`.*) \| (.*) \|$", re.MULTILINE)
COMMAND: Final = re.compile(r"`((?:curl|wget) [^`]*)`")
TROUBLE: Final = {"503"}
"""Answers where something is broken: other tests have them."""

ABSENT: Final = "0" * 64
NO_ID: Final = "00000000-0000-7000-8000-000000000000"
WORD: Final = re.compile(r"\b(URL|FILE|DIGEST|BASE64|KEY|OTHER|ID|NAME|LINK|UPLOAD|TUS)\b")


def told(part: str) -> dict[str, set[str]]:
    """The statuses of each command with ``part`` in it."""
    rows: dict[str, set[str]] = {}
    for page in PAGES:
        for commands, answer in ROW.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
            for command in COMMAND.findall(commands):
                rows[command] = set(re.findall(r"\b[2-5]\d\d\b|\b460\b", answer)) - TROUBLE
    return {command: statuses for command, statuses in rows.items() if part in command}


class Shell:
    """Somebody who types the commands of a table, and what they were answered."""

    def __init__(self, directory: Path, **values: str) -> None:
        """``values`` are those of the words that stand for something."""
        self.directory = directory
        self.values = {"FILE": "file", "TUS": "-H 'Tus-Resumable: 1.0.0'", **values}
        self.seen: defaultdict[str, set[str]] = defaultdict(set)

    @property
    def file(self) -> Path:
        """The file that ``FILE`` stands for."""
        return self.directory / self.values["FILE"]

    def holds(self, data: bytes) -> None:
        """``FILE`` has these bytes, ``DIGEST`` and ``BASE64`` are theirs."""
        self.file.write_bytes(data)
        digest = hashlib.sha256(data)
        self.values["DIGEST"] = digest.hexdigest()
        self.values["BASE64"] = base64.b64encode(digest.digest()).decode()

    def type(self, command: str, *statuses: int, **values: str) -> str:
        """Type it as often as there are ``statuses``, which are the answers; the last body."""
        body = ""
        for status in statuses:
            found, body = self._run(self._words(command, values))
            assert found == str(status), (command, body)
            self.seen[command].add(found)
        return body

    def _words(self, command: str, values: dict[str, str]) -> list[str]:
        """``command`` as a shell passes it on."""
        known = {**self.values, **values}
        return shlex.split(WORD.sub(lambda found: known[found[1]], command))

    def _run(self, words: list[str]) -> tuple[str, str]:
        """The status that a program was answered, and what it wrote then."""
        if "-N" in words:
            return _begun(words), ""
        more = ["-S"] if words[0] == "wget" else ["-sS", "-w", "\n%{http_code}"]
        ran = subprocess.run(
            [*words, *more], cwd=self.directory, capture_output=True, check=False, timeout=60
        )
        if words[0] == "wget":
            return re.findall(r"HTTP/1\.1 (\d+)", ran.stderr.decode())[-1], ""
        body, _, status = ran.stdout.decode(errors="replace").rpartition("\n")
        return status, body


def _begun(words: list[str]) -> str:
    """The status of an answer that may have no end."""
    with subprocess.Popen([*words, "-sSi"], stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        try:
            return curl.stdout.readline().split()[1].decode()
        finally:
            curl.kill()


def write_too_deep(directory: Path) -> None:
    """Write what no snapshot can hold: a path of more than 4,096 bytes."""
    directory.mkdir(exist_ok=True)
    at = os.open(directory, os.O_DIRECTORY)
    for _ in range(17):
        os.mkdir("d" * 250, dir_fd=at)
        below = os.open("d" * 250, os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


class Site(NamedTuple):
    """A gateway that takes all that the tables have, and one that has no state by itself."""

    url: str
    plain: str
    apps: Path
    holdfast: SyncClient


@pytest.fixture(scope="module")
def site(nats_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    apps, keys = directory / "apps", str(directory / "keys")
    apps.mkdir()
    assert main(["link-key", "create", "spring", "--file", keys]) == 0
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        deployment = stack.enter_context(Deployment(nats_server.url))
        deployment.start("one", apps=str(apps), link_keys=keys, public_url=url)
        known: dict[str, Any] = {"public_url": url, "link_keys": keys, "state": "older"}
        stack.enter_context(serving(deployment, listen=f"127.0.0.1:{port}", **known))
        plain = stack.enter_context(serving(deployment))
        holdfast = stack.enter_context(
            connect_sync(servers=deployment.url, prefix=deployment.prefix)
        )
        yield Site(url, plain, apps, holdfast)


@pytest.fixture
def shell(site: Site, tmp_path: Path) -> Shell:
    return Shell(tmp_path, URL=site.url)


def test_blobs(shell: Shell) -> None:
    shell.holds(b"a blob to be read")
    shell.type("curl -T FILE URL/blobs", 201, 200)
    read = ["curl -O URL/blobs/DIGEST", "curl -I URL/blobs/DIGEST"]
    for command in read:
        shell.type(command, 200)
        shell.type(command, 404, DIGEST=ABSENT)
    part = shell.directory / shell.values["DIGEST"]
    assert part.read_bytes() == b"a blob to be read"
    part.write_bytes(b"a blob")
    shell.type("curl -C - -O URL/blobs/DIGEST", 206, 416)
    assert part.read_bytes() == b"a blob to be read"
    shell.type("curl -r 0-3,6-7 URL/blobs/DIGEST", 206)
    same = """curl -H 'If-None-Match: "DIGEST"' URL/blobs/DIGEST"""
    shell.type(same, 304)
    shell.type(same, 404, DIGEST=ABSENT)

    shell.holds(b"new")
    shell.type("curl -T FILE URL/blobs/DIGEST", 201, 200)
    shell.type("curl -r 0-3,6-7 URL/blobs/DIGEST", 206)
    shell.type("curl -T FILE URL/blobs/DIGEST", 400, DIGEST=ABSENT)
    shell.holds(b"")
    shell.type("curl -T FILE URL/blobs/DIGEST", 201)
    shell.type("curl -r 0-3,6-7 URL/blobs/DIGEST", 416)
    shell.holds(b"by its digest")
    shell.type("curl -T FILE -H 'Repr-Digest: sha-256=:BASE64:' URL/blobs", 201, 200)
    shell.file.write_bytes(b"another")
    shell.type("curl -T FILE -H 'Repr-Digest: sha-256=:BASE64:' URL/blobs", 400)
    shell.type("curl -X PATCH URL/blobs", 405)

    assert shell.seen == told("URL/blobs")


def test_names(shell: Shell, site: Site) -> None:
    make, replace = "curl --data-binary @FILE URL/store/a/name", "curl -T FILE URL/store/a/name"
    just = """curl -T FILE -H 'If-Match: "DIGEST"' URL/store/a/name"""
    fresh = "curl -T FILE -H 'If-None-Match: *' URL/store/a/name"
    known = ["curl URL/store/a/name", "curl -I URL/store/a/name"]
    past = [f"curl 'URL/store/a/name?{what}'" for what in ("history", "versions", "version=3")]
    removed = """curl -X DELETE -H 'If-Match: "DIGEST"' URL/store/a/name"""

    shell.holds(b"one")
    for command in (replace, *known, *past, "curl -X DELETE URL/store/a/name"):
        shell.type(command, 404)
    shell.type(make, 201, 409)
    shell.type(just, 200)
    shell.holds(b"two")
    shell.type(just, 412)
    shell.type(replace, 200)
    for command in (*known, *past):
        shell.type(command, 200)
    shell.type("curl 'URL/store?prefix=a/&delimiter=/&start_after=a/b'", 200)
    shell.type(removed, 412, DIGEST=ABSENT)
    shell.type(removed, 204)
    shell.type(fresh, 201, 412)
    shell.type("curl -X DELETE URL/store/a/name", 204)
    odd = "curl --get --data-urlencode name=../odd URL/store"
    shell.type(odd, 404)
    site.holdfast.names.put("../odd", b"odd")
    shell.type(odd, 200)
    shell.type("curl --path-as-is URL/store/../odd", 400)

    assert shell.seen == told("URL/store")


def test_snapshots(shell: Shell, site: Site) -> None:
    make = """curl --json '{"app": "blog"}' URL/snapshots"""
    restore = """curl --json '{"app": "copy"}' URL/snapshots/KEY/restore"""
    archive = "curl -C - -o FILE URL/snapshots/KEY/archive"
    post = "curl -C - -O URL/snapshots/KEY/files/posts/one.html"
    since_parent, forget = "curl URL/snapshots/KEY/diff", "curl -X DELETE URL/snapshots/KEY"
    of_one = [
        "curl URL/snapshots/KEY",
        "curl 'URL/snapshots/KEY/files?path=posts'",
        "curl 'URL/snapshots/KEY/diff?from=OTHER'",
        "curl -N URL/snapshots/KEY/events",
    ]
    of_restore = ["curl URL/restores/ID", "curl -N URL/restores/ID/events"]
    app = site.apps / "blog"

    shell.type(make, 404)
    write_too_deep(app)
    with httpx.Client(base_url=site.url, trust_env=False, timeout=60) as http:
        broken = ended(http, f"/snapshots/{json.loads(shell.type(make, 202))['key']}")
        shell.type(archive, 409, KEY=broken["key"])
        shutil.rmtree(app)
        (app / "posts").mkdir(parents=True)
        (app / "posts" / "one.html").write_bytes(b"a post")
        first = ended(http, f"/snapshots/{json.loads(shell.type(make, 202))['key']}")
        second = ended(http, f"/snapshots/{json.loads(shell.type(make, 202))['key']}")
        known = {"KEY": second["key"], "OTHER": first["key"]}
        restored = json.loads(shell.type(restore, 202, **known))["restore"]
        ended(http, f"/restores/{restored}")
    assert (site.apps / "copy" / "posts" / "one.html").read_bytes() == b"a post"
    absent = {"KEY": f"blog:{NO_ID}", "OTHER": first["key"]}
    for command in of_one:
        shell.type(command, 200, **known)
        shell.type(command, 404, **absent)
    for command in of_restore:
        shell.type(command, 200, ID=restored)
        shell.type(command, 404, ID=NO_ID)
    shell.type(since_parent, 400, KEY=first["key"])
    shell.type(since_parent, 200, **known)
    shell.type(restore, 404, **absent)
    for command, file in ((archive, shell.file), (post, shell.directory / "one.html")):
        shell.type(command, 404, **absent)
        file.unlink(missing_ok=True)
        shell.type(command, 200, **known)
        whole = file.read_bytes()
        file.write_bytes(whole[:3])
        shell.type(command, 206, **known)
        assert file.read_bytes() == whole
    shell.type("curl 'URL/snapshots?app=blog&label=why=upgrade&since=2026-11-01T00:00:00Z'", 200)
    shell.type(forget, 204, 404, **known)

    assert shell.seen == {**told("URL/snapshots"), **told("URL/restores")}


def test_states(shell: Shell, site: Site) -> None:
    save = "curl --json @FILE -H 'Blob-Last-Applied-Index: 17' URL/state/NAME"
    append = """curl --json '{"add": 1}' URL/command/NAME"""
    append_if = """curl --json '{"add": 1}' -H 'If-Match: "17"' URL/command/NAME"""
    saved = [f"curl {what}" for what in ("URL/state/NAME", "'URL/state/NAME?index=17'")]
    saved.append("curl 'URL/state/NAME?saves'")
    log = ["curl 'URL/log/NAME?from=12'", "curl -N 'URL/log/NAME?from=12&follow'"]
    older = ["curl URL/state", "curl --json @FILE URL/state"]
    older.append("""curl --json '{"add": 1}' URL/command""")
    shell.values["NAME"] = "orders/eu"
    shell.holds(b'{"sum": 17}')

    for command in (*saved, *log):
        shell.type(command, 404)
    shell.type(append, *[200] * 17)
    shell.type(append_if, 200, 412)
    shell.type(save, 201)
    site.holdfast.states.save("orders/eu", {"sum": 18}, last_applied_index=18)
    shell.type(save, 409)
    for command in (*saved, *log):
        shell.type(command, 200)
    shell.type("curl 'URL/states?prefix=orders/'", 200)
    for command, status in zip(older, (404, 201, 200), strict=True):
        shell.type(command, 404, URL=site.plain)
        shell.type(command, status)
    shell.type(older[0], 200)

    told_of = [told(f"URL/{path}") for path in ("state", "command", "log")]
    assert shell.seen == {key: row for rows in told_of for key, row in rows.items()}


def test_the_gateway_itself(shell: Shell) -> None:
    for command in told("URL/healthz") | told("URL/readyz") | told("URL/metrics"):
        shell.type(command, 200)
    shell.type("curl URL/openapi.json", 200)
    shell.type("curl URL/nowhere", 404)


def test_links(shell: Shell, site: Site) -> None:
    data = secrets.token_bytes(100_000)
    link = site.holdfast.link(site.holdfast.put(data).digest, 60).url
    put = "curl -T FILE 'LINK'"

    for command in told("'LINK'").keys() - {put}:
        shell.file.unlink(missing_ok=True)
        shell.type(command, 403, LINK=link.replace("X-Amz-Date=2", "X-Amz-Date=3"))
        shell.file.unlink(missing_ok=True)
        shell.type(command, 200, LINK=link)
        shell.file.write_bytes(data[:10_000])
        shell.type(command, 206, LINK=link)
        assert shell.file.read_bytes() == data
    upload = site.holdfast.names.link("drop", 60, method="PUT").url
    shell.type(put, 201, 403, LINK=upload)
    shell.type(put, 200, LINK=site.holdfast.names.link("drop", 60, method="PUT").url)
    assert site.holdfast.names.get("drop") == data

    assert shell.seen == told("'LINK'")


def test_resumable_uploads(shell: Shell, site: Site) -> None:
    offered, begin, look, send, send_checked, give_up = list({**told("/uploads"), **told("TUS")})

    def begun() -> str:
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "11"}
        made = httpx.post(f"{site.url}/uploads", headers=headers, trust_env=False, timeout=60)
        return f"{site.url}{made.headers['Location']}"

    shell.type(offered, 204)
    shell.type(begin, 412, TUS="")
    shell.type(begin, 201, 409)
    gone, half, whole = begun(), begun(), begun()
    shell.type(give_up, 204, 404, UPLOAD=gone)
    shell.holds(b"hello")
    shell.type(send, 404, UPLOAD=gone)
    shell.type(look, 404, UPLOAD=gone)
    shell.type(send, 204, 409, UPLOAD=half)
    shell.type(look, 200, UPLOAD=half)
    shell.holds(b"much more than it has")
    shell.type(send, 413, UPLOAD=whole)
    shell.holds(b"hello world")
    shell.type(send_checked, 460, UPLOAD=whole, BASE64="AAAA")
    shell.type(send_checked, 204, UPLOAD=whole)
    assert site.holdfast.get(shell.values["DIGEST"]) == b"hello world"

    assert shell.seen == {**told("/uploads"), **told("TUS")}


def test_every_command_is_in_one_of_these_tests() -> None:
    parts = ("blobs", "store", "snapshots", "restores", "state", "command", "log", "uploads")
    alone = ("healthz", "readyz", "metrics", "openapi.json", "nowhere")
    known = [*(f"URL/{part}" for part in (*parts, *alone)), "'LINK'", "TUS"]

    assert set(told("")) == {command for part in known for command in told(part)}
