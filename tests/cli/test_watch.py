"""``holdfast watch``: lines of JSON until it is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from holdfast.cli.base import exit_codes
from holdfast.runtime.child import dies_with_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Holdfast

pytestmark = pytest.mark.nats


@contextmanager
def watching(holdfast: Holdfast, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command, with the lines that it writes."""
    command = [sys.executable, "-m", "holdfast", "watch", *words, *holdfast.connection]
    process = subprocess.Popen(
        dies_with_this_process(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_it_tells_what_happens_until_it_is_stopped(
    holdfast: Holdfast, number: signal.Signals
) -> None:
    with watching(holdfast, "blobs", "--since", "0") as process:
        holdfast("blob", "put", __file__)
        assert process.stdout is not None
        event = json.loads(process.stdout.readline())

        process.send_signal(number)

        assert process.wait(60) == exit_codes.OK
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert event["specversion"] == "1.0"
    assert event["type"] == "holdfast.blob.put"
    assert event["data"]["digest"] == event["subject"]
    assert event["position"].isdecimal()


def test_it_ends_once_nobody_reads_what_it_tells(holdfast: Holdfast) -> None:
    with watching(holdfast, "blobs", "--since", "0") as process:
        holdfast("blob", "put", __file__)
        assert process.stdout is not None
        process.stdout.readline()

        process.stdout.close()
        holdfast("blob", "put", sys.executable)

        assert process.wait(60) == exit_codes.BROKEN_PIPE
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_goes_on_from_the_position_of_a_line(holdfast: Holdfast) -> None:
    with watching(holdfast, "blobs", "--since", "0") as process:
        holdfast("blob", "put", __file__)
        assert process.stdout is not None
        position = json.loads(process.stdout.readline())["position"]
    with watching(holdfast, "blobs", "--since", position) as process:
        holdfast("blob", "put", json.__file__)
        assert process.stdout is not None
        event = json.loads(process.stdout.readline())

    assert int(event["position"]) > int(position)


@pytest.mark.parametrize(
    "words",
    [["apps"], ["names", "blobs", "--since", "0"], ["--since", "0"], ["names", "--since", "-1"]],
    ids=" ".join,
)
def test_wrong_usage_is_told(holdfast: Holdfast, words: list[str]) -> None:
    ran = holdfast("watch", *words)

    assert ran.status == exit_codes.USAGE
    assert ran.err
