"""Whose answer it was, as one server tells of the way of a request."""

from __future__ import annotations

import json

import pytest

from holdfast.transport.jetstream_direct import answerer_told

CAME = {"type": "in", "kind": 0}
TO_OTHER = {"type": "eg", "kind": 1, "name": "n2"}


def told(*events: dict[str, object]) -> bytes:
    return json.dumps({"server": {"name": "n1", "id": "x"}, "events": events}).encode()


@pytest.mark.parametrize(
    ("message", "answerer"),
    [
        (told(CAME), "n1"),
        (told(CAME, {"type": "sm"}), "n1"),
        (told(CAME, TO_OTHER), "n2"),
        (told(CAME, TO_OTHER, TO_OTHER | {"name": "n3"}), ""),  # two of one group cannot be
        (told(CAME, TO_OTHER | {"kind": 2}), ""),  # into another cluster, where nothing is told
        (told({"type": "in", "kind": 1, "name": "n1"}), None),  # what the other server tells
        (told(), None),
        (b"", None),
        (b"[]", None),
    ],
)
def test_it_is_the_server_that_did_not_pass_it_on_or_the_one_that_it_was_passed_to(
    message: bytes, answerer: str | None
) -> None:
    assert answerer_told(message) == answerer
