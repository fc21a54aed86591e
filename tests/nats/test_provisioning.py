"""Buckets are made once, by an operator, and one that does not fit is refused with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nats
import pytest
from tests.nats.buckets import Bucket, create_records

from holdfast.domain.store_state import Layout, differences
from holdfast.errors import ConflictError, UnavailableError
from holdfast.stores.jetstream.buckets.check import (
    HARMLESS,
    LAYOUT,
    LOG_SETTINGS,
    OBJECT_SETTINGS,
    RECORD_SETTINGS,
    check_bucket,
)
from holdfast.stores.jetstream.buckets.provisioning import (
    bucket_names,
    ensure_stream,
    log_stream,
    object_stream,
    record_stream,
)
from holdfast.stores.jetstream.buckets.replication import read_bucket
from holdfast.stores.location import BucketLocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.transport.connection import Connection
    from holdfast.transport.jetstream import JetStream

pytestmark = pytest.mark.nats


async def config_of(jetstream: JetStream, stream: str) -> dict[str, Any]:
    config: dict[str, Any] = (await jetstream.api(f"STREAM.INFO.{stream}"))["config"]
    return config


def wanted(name: str, **settings: Any) -> dict[str, Any]:
    return {**object_stream(name, BucketLocation(bucket=name)), **settings}


async def test_making_a_bucket_twice_makes_it_once_and_keeps_what_is_in_it(
    jetstream: JetStream, fresh_name: str
) -> None:
    stream = object_stream(fresh_name, BucketLocation(bucket=fresh_name))

    first = await ensure_stream(jetstream, stream)
    await jetstream.publish(f"$O.{fresh_name}.C.x", b"kept", {})
    second = await ensure_stream(jetstream, stream)

    name = f"OBJ_{fresh_name}"
    assert first == f"created {name} with 1 replica(s)"
    assert second == f"found {name} with 1 replica(s)"
    assert await jetstream.last_message(name, f"$O.{fresh_name}.C.x") is not None


@pytest.mark.parametrize("make", [object_stream, record_stream, log_stream])
async def test_what_was_made_has_the_settings_that_were_asked_for(
    jetstream: JetStream, fresh_name: str, make: Callable[[str, Layout], dict[str, Any]]
) -> None:
    location = BucketLocation(
        bucket=fresh_name, storage="memory", max_bytes=2**20, states_max_bytes=2**21
    )
    asked = make(fresh_name, location)

    await ensure_stream(jetstream, asked)

    made = await config_of(jetstream, asked["name"])
    assert {key: made.get(key, 0) for key in asked} == asked


async def test_a_bucket_of_a_stock_client_is_made_fit_and_keeps_what_is_in_it(
    jetstream: JetStream, connection: Connection, nats_url: str, fresh_name: str
) -> None:
    client = await nats.connect(nats_url)
    stock = await client.jetstream().create_object_store(fresh_name)
    await stock.put("theirs", b"x")
    bucket = Bucket(connection, fresh_name)
    with pytest.raises(UnavailableError, match="holdfast admin init"):
        await bucket.store.check()

    said = await ensure_stream(jetstream, wanted(fresh_name))

    assert said.startswith(f"changed OBJ_{fresh_name}: ")
    await bucket.store.check()
    assert (await stock.get("theirs")).data == b"x"
    await client.close()


async def test_a_limit_that_is_stated_is_set_and_one_that_is_not_stays(
    jetstream: JetStream, fresh_name: str
) -> None:
    def limited(max_bytes: int | None) -> dict[str, Any]:
        return object_stream(fresh_name, BucketLocation(bucket=fresh_name, max_bytes=max_bytes))

    await ensure_stream(jetstream, limited(2**20))
    raised = await ensure_stream(jetstream, limited(2**21))
    left = await ensure_stream(jetstream, limited(None))
    lowered = await ensure_stream(jetstream, limited(2**19))

    name = f"OBJ_{fresh_name}"
    assert (raised, lowered) == (f"changed {name}: max_bytes", f"changed {name}: max_bytes")
    assert left == f"found {name} with 1 replica(s)"
    assert (await config_of(jetstream, name))["max_bytes"] == 2**19


async def test_a_limit_below_what_is_stored_is_refused(
    jetstream: JetStream, fresh_name: str
) -> None:
    await ensure_stream(jetstream, wanted(fresh_name))
    await jetstream.publish(f"$O.{fresh_name}.C.x", bytes(5000), {})
    location = BucketLocation(bucket=fresh_name, max_bytes=4000)

    with pytest.raises(ConflictError, match=r"holds \d+ bytes: max_bytes=4000 is less"):
        await ensure_stream(jetstream, object_stream(fresh_name, location))

    assert (await config_of(jetstream, f"OBJ_{fresh_name}"))["max_bytes"] == -1


async def test_replicas_and_placement_that_differ_are_told_and_left(
    jetstream: JetStream, fresh_name: str
) -> None:
    await ensure_stream(jetstream, wanted(fresh_name))
    location = BucketLocation(bucket=fresh_name, replicas=3, tags=("ssd",))

    said = await ensure_stream(jetstream, object_stream(fresh_name, location))

    assert said == (
        f"found OBJ_{fresh_name} with 1 replica(s); bucket {fresh_name} has 1 replica and the"
        " configuration asks for 3: `holdfast admin replicas 3` changes it; bucket"
        f" {fresh_name} is placed anywhere and the configuration asks for tags=ssd: `holdfast"
        " admin replicas 3` moves it"
    )
    assert (await config_of(jetstream, f"OBJ_{fresh_name}"))["num_replicas"] == 1


# What no bucket may have, with what the server wants beside it, and what is said of it.
SPOILING: list[tuple[dict[str, Any], str]] = [
    ({"sealed": True}, "sealed=True; a sealed bucket takes no writes"),
    (
        {"mirror": {"name": "ELSEWHERE"}, "subjects": [], "allow_atomic": False},
        "a mirror takes no writes",
    ),
    ({"sources": [{"name": "ELSEWHERE"}]}, "remove the sources"),
    (
        {
            "allow_msg_counter": True,
            "allow_msg_ttl": False,
            "allow_rollup_hdrs": False,
            "discard": "old",
        },
        "it takes counters only; that cannot be changed, so make another bucket",
    ),
    ({"deny_purge": True, "allow_rollup_hdrs": False}, "deleted messages could not be removed"),
    (
        {"persist_mode": "async", "allow_atomic": False},
        "acknowledged writes may not be on the disk",
    ),
    ({"subject_transform": {"src": ">", "dest": "gone.>"}}, "remove the transform"),
    ({"republish": {"src": ">", "dest": "heard.>"}}, "remove the republish"),
    ({"no_ack": True}, "nobody would know what is stored"),
    ({"max_msg_size": 1000}, "max_msg_size=1000; messages beyond that size are refused"),
    ({"duplicate_window": 119 * 10**9}, "stored twice: set it to 2 minutes or more"),
    ({"first_seq": 2**53 + 1}, "larger than clients can count"),
    ({"retention": "interest"}, "would vanish when they are read"),
    ({"retention": "workqueue"}, "would vanish when they are read"),
    ({"max_age": 3600 * 10**9}, "max_age=3600000000000; .* after that time: remove the limit"),
    ({"max_msgs": 1000}, "max_msgs=1000; .* beyond that count: remove the limit"),
    (
        {"discard_new_per_subject": True, "max_msgs_per_subject": 1},
        "stored messages could not be replaced",
    ),
]
OF_OBJECTS: list[tuple[dict[str, Any], str]] = [
    ({"max_msgs_per_subject": 1}, "max_msgs_per_subject=1; chunks of a blob share a subject"),
    ({"max_msgs_per_subject": 10**6}, "the first ones would vanish: remove the limit"),
    ({"subjects": ["$O.{}.C.>"]}, r"it must take \$O\..*\.M\.>: add it"),
    ({"subjects": ["$O.{}.C.>", "$O.{}.M.*.x"]}, r"it must take \$O\..*\.M\.>: add it"),
]
OF_RECORDS: list[tuple[dict[str, Any], str]] = [
    ({"max_msgs_per_subject": 5}, "max_msgs_per_subject=5; it must keep a history of one"),
    ({"subjects": ["$KV.{}.*"]}, r"it must take \$KV\..*\.>: add it"),
]
OF_LOGS: list[tuple[dict[str, Any], str]] = [
    ({"max_msgs_per_subject": 1}, "entries of a log share a subject, and the first ones"),
    ({"allow_msg_ttl": True}, "an entry could vanish by itself; that cannot be changed"),
    ({"subjects": ["$HF.{}.*"]}, r"it must take \$HF\..*\.>: add it"),
]
# What `admin init` changes by itself.
MENDED: list[tuple[dict[str, Any], str]] = [
    ({"discard": "old"}, "set discard to new"),
    ({"allow_direct": False}, "direct reads"),
    ({"allow_rollup_hdrs": False}, "roll-ups"),
    ({"allow_msg_ttl": False}, "message TTLs"),
]


def every(*tables: list[tuple[dict[str, Any], str]]) -> pytest.MarkDecorator:
    rows = [
        pytest.param(settings, sentence, id=f"{next(iter(settings))}-{number}")
        for number, (settings, sentence) in enumerate(row for table in tables for row in table)
    ]
    return pytest.mark.parametrize(("settings", "sentence"), rows)


async def make_stream(
    jetstream: JetStream, fitting: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """A stream that fits but for ``settings``; its configuration, as it is then."""
    name, bucket = fitting["name"], fitting["name"].partition("_")[2]
    later = {"sealed": True} if settings.get("sealed") else {}
    made = {**fitting, **({} if later else settings)}
    made["subjects"] = [subject.format(bucket) for subject in made["subjects"]]
    if "ELSEWHERE" in str(settings):
        elsewhere = f"ELSEWHERE-{bucket}"
        await jetstream.api(f"STREAM.CREATE.{elsewhere}", {"name": elsewhere})
        made |= {"mirror": {"name": elsewhere}} if "mirror" in made else {}
        made |= {"sources": [{"name": elsewhere}]} if "sources" in made else {}
    await jetstream.api(f"STREAM.CREATE.{name}", made)
    if later:
        await jetstream.api(f"STREAM.UPDATE.{name}", {**made, **later})
    return await config_of(jetstream, name)


async def refuse_both(
    jetstream: JetStream, fitting: dict[str, Any], settings: dict[str, Any], sentence: str
) -> None:
    """A worker refuses the bucket; so does the operator's command, which leaves it as it is."""
    name, bucket = fitting["name"], fitting["name"].partition("_")[2]
    before = await make_stream(jetstream, fitting, settings)

    with pytest.raises(UnavailableError, match=sentence) as refused:
        await check(jetstream, name)
    with pytest.raises(ConflictError, match=sentence):
        await ensure_stream(jetstream, fitting)

    said = refused.value.detail.removeprefix(f"the bucket {bucket!r} has ")
    assert "\n" not in said
    assert next(differences(await read_bucket(jetstream, name), Layout())) == (
        f"bucket {bucket} has {said}"
    )
    assert await config_of(jetstream, name) == before


async def check(jetstream: JetStream, stream: str) -> None:
    await check_bucket(jetstream, stream.partition("_")[2], stream)


@pytest.mark.fault("N18")
@every(SPOILING, OF_OBJECTS)
async def test_a_bucket_that_would_lose_or_spoil_blobs_is_refused_and_left_as_it_is(
    jetstream: JetStream, fresh_name: str, settings: dict[str, Any], sentence: str
) -> None:
    await refuse_both(jetstream, wanted(fresh_name), settings, sentence)


@pytest.mark.fault("N18")
@every([row for row in SPOILING if "max_msgs_per_subject" not in row[0]], OF_RECORDS)
async def test_a_bucket_that_would_lose_or_mix_up_records_is_refused_and_left_as_it_is(
    jetstream: JetStream, fresh_name: str, settings: dict[str, Any], sentence: str
) -> None:
    fitting = record_stream(fresh_name, BucketLocation(bucket=fresh_name))

    await refuse_both(jetstream, fitting, settings, sentence)


@pytest.mark.fault("N18")
@every(SPOILING, OF_LOGS)
async def test_a_stream_that_would_lose_or_mix_up_logs_is_refused_and_left_as_it_is(
    jetstream: JetStream, fresh_name: str, settings: dict[str, Any], sentence: str
) -> None:
    fitting = log_stream(fresh_name, BucketLocation(bucket=fresh_name))
    adding = {**settings, "deny_delete": False} if "allow_msg_counter" in settings else settings

    await refuse_both(jetstream, fitting, adding, sentence)


@pytest.mark.fault("N18")
async def test_logs_take_no_roll_ups_which_an_operator_may_set(
    jetstream: JetStream, fresh_name: str
) -> None:
    fitting = log_stream(fresh_name, BucketLocation(bucket=fresh_name))
    await make_stream(jetstream, fitting, {"allow_rollup_hdrs": True})

    with pytest.raises(UnavailableError, match="one message could empty a log"):
        await check(jetstream, f"HF_{fresh_name}")
    await ensure_stream(jetstream, fitting)

    await check(jetstream, f"HF_{fresh_name}")


@pytest.mark.fault("N18")
async def test_a_bucket_in_memory_is_refused_where_files_are_asked_for(
    jetstream: JetStream, fresh_name: str
) -> None:
    await jetstream.api(f"STREAM.CREATE.OBJ_{fresh_name}", wanted(fresh_name, storage="memory"))

    with pytest.raises(ConflictError, match="storage='memory': 'file' is needed"):
        await ensure_stream(jetstream, wanted(fresh_name))


@pytest.mark.fault("N18")
@every(MENDED)
async def test_what_an_operator_sets_by_making_the_bucket_again_a_worker_refuses_until_then(
    jetstream: JetStream, fresh_name: str, settings: dict[str, Any], sentence: str
) -> None:
    await make_stream(jetstream, wanted(fresh_name), settings)

    with pytest.raises(UnavailableError, match=sentence):
        await check(jetstream, f"OBJ_{fresh_name}")
    said = await ensure_stream(jetstream, wanted(fresh_name))

    assert said == f"changed OBJ_{fresh_name}: {next(iter(settings))}"
    await check(jetstream, f"OBJ_{fresh_name}")


@pytest.mark.fault("N18")
async def test_records_need_atomic_batches_which_an_operator_may_set(
    jetstream: JetStream, fresh_name: str
) -> None:
    fitting = record_stream(fresh_name, BucketLocation(bucket=fresh_name))
    await make_stream(jetstream, fitting, {"allow_atomic": False})

    with pytest.raises(UnavailableError, match="atomic batches"):
        await check(jetstream, f"KV_{fresh_name}")
    await ensure_stream(jetstream, fitting)

    await check(jetstream, f"KV_{fresh_name}")


async def test_settings_that_spoil_nothing_are_left_as_they_are(
    jetstream: JetStream, fresh_name: str
) -> None:
    harmless = {
        "description": "ours",
        "metadata": {"of": "somebody"},
        "max_consumers": 3,
        "consumer_limits": {"max_ack_pending": 5},
        "compression": "s2",
        "deny_delete": True,
        "subject_delete_marker_ttl": 10**9,
        "allow_batched": True,
        "first_seq": 1000,
        "duplicate_window": 300 * 10**9,
        "subjects": ["$O.{}.>", "more.{}"],
    }
    before = await make_stream(jetstream, wanted(fresh_name), harmless)

    said = await ensure_stream(jetstream, wanted(fresh_name))

    assert said == f"found OBJ_{fresh_name} with 1 replica(s)"
    await check(jetstream, f"OBJ_{fresh_name}")
    after = await config_of(jetstream, f"OBJ_{fresh_name}")
    assert after == before
    kinds = (OBJECT_SETTINGS, RECORD_SETTINGS, LOG_SETTINGS)
    checked = {one.field for kind in kinds for one in kind.required}
    thought_of = {"subjects"} | checked | HARMLESS.keys() | LAYOUT
    assert {field for field in after if not field.startswith("_")} <= thought_of


@pytest.mark.fault("N18")
async def test_a_bucket_that_is_missing_is_unavailable_and_says_what_to_do(
    connection: Connection, jetstream: JetStream, fresh_name: str
) -> None:
    sentence = f"'{fresh_name}' is not there; `holdfast admin init` makes it"

    with pytest.raises(UnavailableError, match=sentence):
        await Bucket(connection, fresh_name).store.check()

    _, records = await create_records(connection, fresh_name)
    await records.check()
    await jetstream.api(f"STREAM.DELETE.KV_{fresh_name}")
    with pytest.raises(UnavailableError, match=sentence):
        await records.check()


async def test_more_replicas_than_servers_are_refused_with_the_servers_reason(
    jetstream: JetStream, fresh_name: str
) -> None:
    location = BucketLocation(bucket=fresh_name, replicas=3)

    with pytest.raises(UnavailableError, match=f"refused to create OBJ_{fresh_name}: .*replicas"):
        await ensure_stream(jetstream, object_stream(fresh_name, location))


@pytest.mark.parametrize(
    ("bucket", "prefix", "expected"),
    [
        ("blobs", "", "blobs packs holdfast snapshots names states"),
        ("media", "", "media media-packs holdfast media-snapshots media-names media-states"),
        (
            "blobs",
            "test",
            "test_blobs test_packs test_holdfast test_snapshots test_names test_states",
        ),
    ],
)
def test_the_buckets_of_a_deployment_have_names_of_their_own(
    bucket: str, prefix: str, expected: str
) -> None:
    names = bucket_names(bucket, prefix)

    assert [*names.of_objects, *names.of_records, names.states] == expected.split()
