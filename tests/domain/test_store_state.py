"""The faults of a store, in sentences that say what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.domain.store_state import (
    BucketState,
    Durability,
    Layout,
    Peer,
    ServerState,
    Silent,
    all_servers,
    cluster_size,
    dated_servers,
    differences,
    durability_of,
    find_problems,
    is_settled,
    lazy_servers,
    payload_difference,
    too_few_servers,
    troubles,
)

LEADER = Peer(name="nats-1", current=True)
SECOND = Peer(name="nats-2", current=True)
THIRD = Peer(name="nats-3", current=True)
HEALTHY = BucketState(
    bucket="blobs",
    stream="OBJ_blobs",
    kind="objects",
    replicas=3,
    leader="nats-1",
    peers=(LEADER, SECOND, THIRD),
)
ALONE = BucketState(bucket="blobs", stream="OBJ_blobs", kind="objects", clustered=False)


def server(
    name: str,
    durability: Durability = "synced",
    *,
    jetstream: bool = True,
    max_payload: int = 2**20,
    size: int | None = 3,
) -> ServerState:
    return ServerState(
        name=name,
        version="2.15.0",
        durability=durability,
        jetstream=jetstream,
        max_payload=max_payload,
        cluster_size=size,
    )


def with_peers(*peers: Peer, **changes: object) -> BucketState:
    return replace(HEALTHY, peers=peers, **changes)  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    ("told", "silent", "durability"),
    [
        ([], 0, "unknown"),
        ([server("a")], 0, "synced"),
        ([server("a", "lazy")], 0, "lazy"),
        ([server("a"), server("b")], 1, "synced"),
        ([server("a"), server("b", "lazy")], 1, "lazy"),
        ([server("a")], 1, "unknown"),
        ([server("a")], 2, "unknown"),
        ([server("a", "lazy")], 2, "lazy"),
        ([server("a", "unknown", jetstream=False)], 0, "unknown"),
        ([server("a"), server("b", "unknown", jetstream=False)], 0, "synced"),
    ],
    ids=str,
)
def test_synced_takes_the_word_of_most_and_lazy_that_of_one(
    told: list[ServerState], silent: int, durability: Durability
) -> None:
    assert durability_of(told, [Silent("http://x", "away")] * silent) == durability


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        (
            Layout(replicas=5),
            "bucket blobs has 3 replicas and the configuration asks for 5: `holdfast admin replicas"
            " 5` changes it",
        ),
        (
            Layout(storage="memory"),
            "bucket blobs has storage=file and the configuration asks for memory: that cannot be"
            " changed, so change the store's URL",
        ),
        (
            Layout(max_bytes=1000),
            "bucket blobs has max_bytes=-1 and the configuration asks for 1000: `holdfast admin"
            " init` changes it",
        ),
        (
            Layout(tags=("ssd", "eu")),
            "bucket blobs is placed anywhere and the configuration asks for tags=ssd,eu: `holdfast"
            " admin replicas 3` moves it",
        ),
        (
            Layout(replicas=3, cluster="EU"),
            "bucket blobs is placed anywhere and the configuration asks for cluster=EU: `holdfast"
            " admin replicas 3` moves it",
        ),
    ],
    ids=["replicas", "storage", "max_bytes", "tags", "cluster"],
)
def test_a_bucket_that_is_kept_otherwise_is_told_with_what_changes_it(
    layout: Layout, sentence: str
) -> None:
    assert list(differences(HEALTHY, layout)) == [sentence]


def test_one_replica_is_told_as_one() -> None:
    told = list(differences(replace(HEALTHY, replicas=1), Layout(replicas=3)))

    assert told[0].startswith("bucket blobs has 1 replica and the configuration asks for 3: ")


def test_what_is_not_stated_may_be_as_it_is() -> None:
    bucket = replace(HEALTHY, replicas=5, max_bytes=7, tags=("ssd",), cluster="EU")

    assert list(differences(bucket, Layout())) == []


def test_the_order_of_tags_does_not_matter() -> None:
    bucket = replace(HEALTHY, tags=("eu", "ssd"), cluster="EU")

    assert list(differences(bucket, Layout(tags=("ssd", "eu"), cluster="EU"))) == []
    assert list(differences(bucket, Layout(tags=("ssd",)))) != []


def test_a_limit_is_for_objects_and_logs_have_one_of_their_own() -> None:
    records = replace(HEALTHY, kind="records")
    logs = replace(HEALTHY, kind="logs", max_bytes=2000)

    assert list(differences(records, Layout(max_bytes=1000, states_max_bytes=1000))) == []
    assert list(differences(logs, Layout(max_bytes=1000, states_max_bytes=2000))) == []
    [told] = differences(logs, Layout(states_max_bytes=3000))
    assert "max_bytes=2000 and the configuration asks for 3000" in told


@pytest.mark.parametrize("bucket", [HEALTHY, ALONE], ids=["three", "one without a cluster"])
def test_a_bucket_with_all_its_copies_has_no_trouble(bucket: BucketState) -> None:
    assert list(troubles(bucket)) == []
    assert bucket.current == bucket.replicas
    assert is_settled(bucket, bucket.replicas)
    assert not is_settled(bucket, bucket.replicas + 1)


@pytest.mark.parametrize(
    ("bucket", "sentence"),
    [
        (
            with_peers(LEADER, replace(SECOND, current=False, offline=True), THIRD),
            "has 2 of 3 replicas current: nats-2 is offline",
        ),
        (
            with_peers(
                LEADER,
                replace(SECOND, current=False, offline=True),
                replace(THIRD, current=False, lag=12),
            ),
            "has 1 of 3 replicas current: nats-2 is offline, nats-3 is 12 behind",
        ),
        (
            with_peers(LEADER, SECOND, replace(THIRD, current=False)),
            "has 2 of 3 replicas current: nats-3 is catching up",
        ),
        (
            with_peers(LEADER, replace(SECOND, current=False), moving=True),
            "has 1 of 3 replicas current: nats-2 is being added or removed",
        ),
        (with_peers(LEADER), "has 1 of 3 replicas current: copies are being added or removed"),
        (
            with_peers(LEADER, SECOND, THIRD, replicas=1, moving=True),
            "has 1 of 1 replica current: copies are being added or removed",
        ),
        (
            with_peers(SECOND, leader=""),
            "has no leader: one is being elected, or too few of its servers can be reached",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_copies_that_are_not_up_to_date_are_named(bucket: BucketState, sentence: str) -> None:
    assert list(troubles(bucket)) == [f"bucket blobs {sentence}"]
    assert not is_settled(bucket, bucket.replicas)


def test_an_offline_peer_does_not_count_even_if_it_was_current() -> None:
    assert with_peers(LEADER, SECOND, replace(THIRD, offline=True)).current == 2


@pytest.mark.parametrize(
    ("replicas", "sizes", "sentence"),
    [
        (3, [1], "3 replicas cannot be: there is 1 server with JetStream. Add servers to the"),
        (5, [None, 3], "5 replicas cannot be: there are 3 servers with JetStream. Add servers to"),
    ],
)
def test_more_replicas_than_servers_are_told(
    replicas: int, sizes: list[int | None], sentence: str
) -> None:
    told = too_few_servers(replicas, [server(str(size), size=size) for size in sizes])

    assert told is not None
    assert told.startswith(sentence)


@pytest.mark.parametrize(
    ("replicas", "sizes"), [(None, [1]), (3, []), (3, [None]), (3, [3]), (1, [1])]
)
def test_enough_servers_or_nobody_knows_is_no_fault(
    replicas: int | None, sizes: list[int | None]
) -> None:
    assert too_few_servers(replicas, [server(str(size), size=size) for size in sizes]) is None


def test_the_largest_size_told_is_that_of_the_cluster() -> None:
    assert cluster_size([server("a", size=2), server("b", size=3), server("c", size=None)]) == 3


def test_servers_that_take_messages_of_different_sizes_are_told() -> None:
    servers = [server("nats-2", max_payload=8), server("nats-1", max_payload=4)]

    assert payload_difference(servers) == (
        "max_payload is not the same on all servers (nats-1 4, nats-2 8): set it to one value"
    )
    assert payload_difference([server("a"), server("b"), ServerState(name="c")]) is None


@pytest.mark.parametrize(
    ("others", "require_sync", "told"),
    [("lazy", False, 0), ("lazy", True, 2), ("synced", False, 1), ("synced", True, 1)],
)
def test_unsynced_writes_are_a_problem_where_synced_ones_are_asked_for_or_usual(
    others: Durability, require_sync: bool, told: int
) -> None:
    servers = [server("nats-1", others), server("nats-2", "lazy")]

    sentences = list(lazy_servers(servers, require_sync=require_sync))

    assert len(sentences) == told
    if told:
        assert sentences[-1] == (
            "nats-2 does not sync its writes: set sync_interval: always in its configuration"
        )


def test_servers_are_known_by_what_they_tell_their_greeting_or_the_copies_they_hold() -> None:
    greeting = ServerState(name="nats-2", version="2.15.0")

    servers = all_servers([server("nats-1")], greeting, [HEALTHY])
    told_itself = all_servers([server("nats-2", "lazy")], greeting, [])

    assert [(s.name, s.version) for s in servers] == [
        ("nats-1", "2.15.0"),
        ("nats-2", "2.15.0"),
        ("nats-3", ""),
    ]
    assert [s.durability for s in told_itself] == ["lazy"]


def test_of_a_server_that_is_not_the_newest_it_is_told_what_it_lacks() -> None:
    versions = ("2.15.1", "2.16.0-RC.1", "", "2.15.0", "2.14.5")
    servers = [ServerState(name=f"nats-{n}", version=each) for n, each in enumerate(versions)]

    told = [sentence.partition(": before 2.15.1 ")[0] for sentence in dated_servers(servers)]

    assert told == ["nats-3 is nats-server 2.15.0", "nats-4 is nats-server 2.14.5"]


def test_a_store_that_is_as_asked_for_has_no_problems() -> None:
    servers = [server("nats-1"), server("nats-2"), server("nats-3")]

    found = find_problems(servers, [], [HEALTHY], Layout(replicas=3), require_sync=True)

    assert list(found) == []


def test_everything_that_is_wrong_is_told() -> None:
    bucket = with_peers(LEADER, replace(SECOND, offline=True), THIRD)

    found = find_problems(
        [server("nats-1"), server("nats-3", "lazy", max_payload=5)],
        [Silent("http://nats-2:8222", "refused")],
        [bucket],
        Layout(replicas=5),
        require_sync=True,
    )

    told = [sentence.partition(":")[0] for sentence in found]
    assert told == [
        "bucket blobs has 3 replicas and the configuration asks for 5",
        "bucket blobs has 2 of 3 replicas current",
        "the monitoring address http",
        "max_payload is not the same on all servers (nats-1 1048576, nats-3 5)",
        "nats-3 does not sync its writes",
    ]
