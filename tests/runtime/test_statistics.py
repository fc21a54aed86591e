"""A worker's account of itself, in the form of ADR-32."""

from __future__ import annotations

from collections import Counter

import pytest

from holdfast.protocol.table import OPERATIONS
from holdfast.runtime.statistics import Discovery, EndpointStats, Identity

IDENTITY = Identity(
    id="w1", version="1.2.3", started="2026-03-01T00:00:00Z", metadata={"node": "n1"}
)
DISCOVERY = Discovery(
    identity=IDENTITY,
    subjects={operation: f"p.{operation.subject}" for operation in OPERATIONS},
    stats={operation: EndpointStats() for operation in OPERATIONS},
)


def test_counters_add_up() -> None:
    stats = EndpointStats()

    stats.count(100, None)
    stats.count(300, "not_found")
    stats.count(0, "rate_limited")

    assert stats == EndpointStats(
        requests=3,
        errors=2,
        last_error="rate_limited",
        processing_ns=400,
        codes=Counter(not_found=1, rate_limited=1),
    )


@pytest.mark.parametrize("kind", ["ping", "info", "stats"])
def test_every_answer_says_who_gives_it(kind: str) -> None:
    answer = {
        "ping": DISCOVERY.ping,
        "info": DISCOVERY.info,
        "stats": DISCOVERY.statistics,
    }[kind]()

    assert answer["type"] == f"io.nats.micro.v1.{kind}_response"
    assert (answer["name"], answer["id"], answer["version"]) == ("holdfast", "w1", "1.2.3")
    assert answer["metadata"] == {"node": "n1"}


def test_info_lists_every_operation_with_its_subject_and_schemas() -> None:
    endpoints = {endpoint["name"]: endpoint for endpoint in DISCOVERY.info()["endpoints"]}

    assert set(endpoints) == {operation.name for operation in OPERATIONS}
    put = endpoints["blob-put"]
    assert (put["subject"], put["queue_group"]) == ("p.blob.put", "q")
    assert set(put["metadata"].values()) >= {
        "urn:holdfast:wire:1:blob.put:request",
        "urn:holdfast:wire:1:blob.put:reply",
    }
    assert endpoints["blob-part"]["queue_group"] == ""


def test_stats_average_the_time_of_each_endpoint() -> None:
    stats = {operation: EndpointStats() for operation in OPERATIONS}
    counted = Discovery(
        identity=IDENTITY,
        subjects=dict.fromkeys(OPERATIONS, "s"),
        stats=stats,
    )
    stats[OPERATIONS[0]].count(100, None)
    stats[OPERATIONS[0]].count(200, "invalid")

    first, *others = counted.statistics()["endpoints"]

    assert (first["num_requests"], first["num_errors"], first["last_error"]) == (2, 1, "invalid")
    assert (first["processing_time"], first["average_processing_time"]) == (300, 150)
    assert all(other["average_processing_time"] == 0 for other in others)
