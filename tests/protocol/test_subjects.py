"""Subjects of one worker and of one node, and the replies that are allowed."""

from __future__ import annotations

import pytest

from holdfast.protocol.subjects import node_subject, part_subject, reply_pattern


@pytest.mark.parametrize(
    ("prefix", "expected"), [("", "blob.part.w.u"), ("team", "team.blob.part.w.u")]
)
def test_a_part_subject_names_the_worker_and_the_upload(prefix: str, expected: str) -> None:
    assert part_subject(prefix, "w", "u") == expected


@pytest.mark.parametrize(
    ("prefix", "node", "expected"),
    [
        ("", "n1", "snapshot.on.n1.create"),
        ("team", "rack-4.example", "team.snapshot.on.rack-4=2Eexample.create"),
    ],
)
def test_a_subject_for_forwarding_names_the_node_in_one_token(
    prefix: str, node: str, expected: str
) -> None:
    assert node_subject(prefix, node, "snapshot.create") == expected


@pytest.mark.parametrize("reply", ["_INBOX.a", "_INBOX.a.b.c", "_R_.x", "_INBOX.aB-_=$,+/!?~"])
def test_inboxes_are_answered(reply: str) -> None:
    assert reply_pattern(("_INBOX.", "_R_.")).fullmatch(reply)


@pytest.mark.fault("A01")
@pytest.mark.parametrize(
    "reply",
    [
        "",
        "_INBOX.",
        "_INBOX",
        "_INBOX.a b",
        "_INBOX.a\n",
        "_INBOX.a>",
        "$JS.API.x",
        "_INBOX.a*",
        "_INBOX.a\x0bb",
        "_INBOX.a\x00",
        "_INBOX.\ufffd",
        "_INBOX.a\x7f",
        "_INBOX.a..b",
        "_INBOX.\u00e4",
    ],
)
def test_nothing_else_is(reply: str) -> None:
    assert reply_pattern(("_INBOX.", "_R_.")).fullmatch(reply) is None
