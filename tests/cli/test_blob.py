"""``holdfast blob``, against a worker and a real nats-server."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from nats.aio.client import Client as NatsClient
from tests.cli.conftest import PREFIX, unread_bytes, wait_until
from tests.deployment import deployed

from holdfast.cli.base import exit_codes
from holdfast.stores.jetstream.blobs.meta import meta_subject

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Holdfast

pytestmark = pytest.mark.nats

ABSENT = "0" * 64
LARGE = hashlib.shake_128(b"").digest(3_000_000)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stdin_of(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data))


@pytest.mark.parametrize("data", [b"", b"hello", LARGE], ids=["empty", "small", "large"])
def test_what_was_put_can_be_got(data: bytes, holdfast: Holdfast, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)

    put = holdfast("blob", "put", str(file))
    got = holdfast("blob", "get", digest_of(data))

    assert (put.status, put.lines) == (0, [f"{digest_of(data)}  {file}"])
    assert (got.status, got.out) == (0, data)


def test_standard_input_is_put_and_a_file_is_got(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of(LARGE[:2_000_001]))
    target = tmp_path / "target"
    target.write_bytes(b"what was there")

    put = holdfast("blob", "put", "-")
    got = holdfast("blob", "get", put.lines[0].split()[0], "--output", str(target))

    assert (got.status, got.out) == (0, b"")
    assert target.read_bytes() == LARGE[:2_000_001]
    assert os.listdir(tmp_path) == ["target"]


def test_a_put_that_failed_does_not_wait_for_a_silent_standard_input(
    worker_connection: tuple[str, ...],
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x")  # and then nothing more, as from a terminal
    command = [sys.executable, "-m", "holdfast", "blob", "put", "-"]
    put = subprocess.Popen(
        [*command, *worker_connection], stdin=reading, stderr=subprocess.PIPE, text=True
    )
    assert put.stderr is not None
    wait_until(lambda: unread_bytes(reading) == 0)

    put.terminate()

    assert put.wait(60) == exit_codes.INTERRUPTED
    assert "Fatal" not in put.stderr.read()
    put.stderr.close()
    os.close(writing)
    os.close(reading)


def test_a_range_can_be_got(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    holdfast("blob", "put", str(tmp_path / "file"))

    got = holdfast("blob", "get", digest_of(LARGE), "--offset", "1999990", "--length", "20")

    assert got.out == LARGE[1999990:2000010]


def test_what_follows_two_dashes_is_no_option(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x").write_bytes(b"dashed")

    put = holdfast.unconnected("blob", "put", *holdfast.connection, "--", "-x")
    without = holdfast("blob", "put", "-x")

    assert (put.status, put.lines) == (0, [f"{digest_of(b'dashed')}  -x"])
    assert without.status == exit_codes.USAGE


def test_a_digest_may_have_white_space_around_it(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"spaced")
    holdfast("blob", "put", str(tmp_path / "file"))

    assert holdfast("blob", "get", f"{digest_of(b'spaced')}\n").out == b"spaced"
    assert holdfast("blob", "has", f" {digest_of(b'spaced')}\r\n").status == exit_codes.OK


def test_json_tells_what_was_stored(holdfast: Holdfast, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"told in json")

    first = holdfast("blob", "put", "--json", str(file))
    again = holdfast("blob", "put", "--json", str(file))

    expected = {"digest": digest_of(b"told in json"), "size": 12, "file": str(file)}
    assert json.loads(first.out) == expected | {"created": True}
    assert json.loads(again.out) == expected | {"created": False}


def test_a_failed_get_leaves_the_file_as_it_was(holdfast: Holdfast, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"before")

    got = holdfast("blob", "get", ABSENT, "-o", str(target))

    assert got.status == exit_codes.NOT_FOUND
    assert got.err.startswith("holdfast: not_found: ")
    assert got.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["target"]
    assert target.read_bytes() == b"before"


def test_standard_output_by_its_name_goes_on_where_it_stands(
    holdfast: Holdfast, worker_connection: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"through")
    holdfast("blob", "put", str(tmp_path / "file"))
    command = [sys.executable, "-m", "holdfast", "blob", "get", digest_of(b"through")]

    with (tmp_path / "output").open("wb", buffering=0) as output:
        output.write(b"before ")
        subprocess.run(
            [*command, "-o", "/dev/stdout", *worker_connection], stdout=output, check=True
        )
        output.write(b" after")

    assert (tmp_path / "output").read_bytes() == b"before through after"


def test_a_file_that_cannot_be_read_is_reported_and_the_others_are_stored(
    holdfast: Holdfast, tmp_path: Path
) -> None:
    (tmp_path / "there").write_bytes(b"there")

    put = holdfast("blob", "put", str(tmp_path / "gone"), str(tmp_path / "there"))

    assert put.status == exit_codes.FAILURE
    assert put.lines == [f"{digest_of(b'there')}  {tmp_path / 'there'}"]
    assert "gone: No such file or directory" in put.err


def test_an_expected_digest_that_does_not_match_stores_nothing(
    holdfast: Holdfast, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"not expected")

    put = holdfast("blob", "put", str(tmp_path / "file"), "--digest", ABSENT)

    assert put.status == exit_codes.USAGE
    assert holdfast("blob", "has", digest_of(b"not expected")).status == exit_codes.NOT_FOUND


def test_has_prints_what_is_missing(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"had")
    sums = holdfast("blob", "put", str(tmp_path / "file")).out
    monkeypatch.setattr(sys, "stdin", stdin_of(sums))

    there = holdfast("blob", "has", "-")
    absent = holdfast("blob", "has", digest_of(b"had"), ABSENT)

    assert (there.status, there.lines) == (exit_codes.OK, [])
    assert (absent.status, absent.lines) == (exit_codes.NOT_FOUND, [ABSENT])


def test_a_blob_is_listed_described_and_removed(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short life")
    digest = digest_of(b"short life")
    holdfast("blob", "put", str(tmp_path / "file"), "--type", "text/plain")

    listed = holdfast("blob", "ls", digest[:8])
    described = json.loads(holdfast("blob", "stat", "--json", digest).out)
    removed = holdfast("blob", "rm", digest)
    again = holdfast("blob", "rm", digest)

    assert [line.split()[0] for line in listed.lines] == [digest]
    assert (described["size"], described["type"]) == (10, "text/plain")
    assert (removed.status, removed.lines) == (0, [f"{digest}  deleted"])
    assert (again.status, again.lines) == (0, [f"{digest}  was not there"])
    assert holdfast("blob", "stat", digest).status == exit_codes.NOT_FOUND


def test_verify_reads_every_blob_back(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"sound")
    holdfast("blob", "put", str(tmp_path / "file"))

    one = holdfast("blob", "verify", digest_of(b"sound"), "--json")
    everything = holdfast("blob", "verify", "--json")

    assert json.loads(one.out) == {"checked": 1, "bytes": 5, "damaged": 0}
    assert json.loads(everything.out)["checked"] >= 1
    assert (one.status, everything.status) == (0, 0)


def test_gc_says_what_stays_and_a_dry_run_what_would_go(
    holdfast: Holdfast, tmp_path: Path, nats_url: str
) -> None:
    with deployed(nats_url, "one") as deployment:  # other tests leave what stops a collection
        at = ("--server", nats_url, "--prefix", deployment.prefix)
        check_gc(holdfast._replace(connection=at), tmp_path)


def check_gc(holdfast: Holdfast, tmp_path: Path) -> None:
    (tmp_path / "pinned").write_bytes(b"pinned")
    holdfast("blob", "put", str(tmp_path / "pinned"))

    told = holdfast("blob", "gc", "--dry-run")
    report = json.loads(holdfast("blob", "gc", "--json").out)

    assert (told.status, [line.split()[:4] for line in told.lines]) == (
        0,
        [["packs", "would", "remove", "0"], ["blobs", "would", "remove", "0"]],
    )
    packs, blobs = report["spaces"]
    assert (report["done"], report["off"], packs["failure"], blobs["failure"]) == (
        *(True, None, None, None),
    )
    assert blobs["pinned"] >= 1
    assert blobs["removed"] == 0


def test_verify_tells_of_a_record_that_cannot_be_read_and_a_put_mends_it(
    holdfast: Holdfast, tmp_path: Path, nats_url: str
) -> None:
    (tmp_path / "file").write_bytes(b"unreadable")
    digest = digest_of(b"unreadable")
    holdfast("blob", "put", str(tmp_path / "file"))
    spoil_record(nats_url, digest)

    everything = holdfast("blob", "verify")
    one = holdfast("blob", "verify", digest)
    put = holdfast("blob", "put", str(tmp_path / "file"))
    again = holdfast("blob", "verify", digest)

    for ran in (everything, one):
        assert ran.status == exit_codes.CORRUPT
        assert [line.split()[:2] for line in ran.lines] == [[digest, "corrupt"]]
        assert ", 1 damaged" in ran.err
    assert (put.status, again.status, again.lines) == (0, 0, [])


def spoil_record(url: str, digest: str) -> None:
    """Damage what is recorded of a blob."""

    async def spoil() -> None:
        client = NatsClient()
        await client.connect(url)
        subject = meta_subject(f"{PREFIX}_blobs", digest)
        await client.jetstream().publish(subject, b"{", headers={"Nats-Rollup": "sub"})
        await client.close()

    asyncio.run(spoil())


def test_a_reader_that_goes_away_is_not_an_error_message(
    holdfast: Holdfast, worker_connection: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    holdfast("blob", "put", str(tmp_path / "file"))
    command = [sys.executable, "-m", "holdfast", "blob", "get", digest_of(LARGE)]

    with subprocess.Popen(
        [*command, *worker_connection], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()

    assert (process.returncode, errors) == (exit_codes.BROKEN_PIPE, b"")


def test_a_reader_that_reads_nothing_does_not_keep_it_from_being_interrupted(
    holdfast: Holdfast, worker_connection: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    holdfast("blob", "put", str(tmp_path / "file"))
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "holdfast", "blob", "get", digest_of(LARGE)]

    with subprocess.Popen([*command, *worker_connection], stdout=writing) as process:
        wait_until(lambda: unread_bytes(reading) > 0)
        process.send_signal(signal.SIGINT)

        assert process.wait(60) == exit_codes.INTERRUPTED
    os.close(writing)
    os.close(reading)
