"""Conclusions from JetStream's answers."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.transport.jetstream_messages import InfoAnswer


def answer(*active_seconds: float) -> InfoAnswer:
    """A leader that heard of the others so many seconds ago."""
    replicas = [{"name": "n", "active": int(seconds * 1e9)} for seconds in active_seconds]
    return msgspec.convert({"cluster": {"leader": "l", "replicas": replicas}}, InfoAnswer)


@pytest.mark.fault("N07")
@pytest.mark.parametrize(
    ("active_seconds", "believed"),
    [
        ((), True),
        ((0.5, 0.5), True),
        ((0.5, 60), True),
        ((2.5, 2.5), False),
        ((0.5, 0.5, 60, 60), True),
        ((0.5, 60, 60, 60), False),
        ((60,), False),
        ((0, 60), False),
    ],
    ids=[
        *("alone", "all", "two of three", "none", "three of five", "two of five", "one of two"),
        "one never heard of",
    ],
)
def test_a_leader_is_believed_while_a_majority_answers_it(
    active_seconds: tuple[float, ...], believed: bool
) -> None:
    assert answer(*active_seconds).has_majority(2) is believed


def test_a_server_that_is_no_cluster_has_its_majority() -> None:
    assert InfoAnswer().has_majority(2)
    assert msgspec.convert({"cluster": {"leader": "l"}}, InfoAnswer).has_majority(2)
