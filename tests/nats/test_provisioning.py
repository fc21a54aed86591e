"""Buckets are made once, by an operator, and one that does not fit is refused with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nats
import pytest
from tests.nats.buckets import Bucket, create_records

from holdfast.errors import ConflictError, UnavailableError
from holdfast.stores.key_value import KeyValueRecordStore
from holdfast.stores.location import BucketLocation
from holdfast.stores.provisioning import (
    bucket_names,
    ensure_stream,
    object_stream,
    record_stream,
)
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from holdfast.transport.connection import Connection

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


@pytest.mark.parametrize("kind", ["object", "record"])
async def test_what_was_made_has_the_settings_that_were_asked_for(
    jetstream: JetStream, fresh_name: str, kind: str
) -> None:
    location = BucketLocation(bucket=fresh_name, storage="memory", max_bytes=2**20)
    make = object_stream if kind == "object" else record_stream
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


@pytest.mark.fault("N18")
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_age": 3600 * 10**9}, "max_age=3600000000000: 0 is needed"),
        ({"storage": "memory"}, "storage='memory': 'file' is needed"),
        ({"retention": "interest"}, "retention='interest': 'limits' is needed"),
    ],
    ids=["max_age", "storage", "retention"],
)
async def test_a_bucket_that_differs_in_what_matters_is_refused_and_left_as_it_is(
    jetstream: JetStream, fresh_name: str, settings: dict[str, Any], sentence: str
) -> None:
    await jetstream.api(f"STREAM.CREATE.OBJ_{fresh_name}", wanted(fresh_name, **settings))
    before = await config_of(jetstream, f"OBJ_{fresh_name}")

    with pytest.raises(ConflictError, match=sentence):
        await ensure_stream(jetstream, wanted(fresh_name))

    assert await config_of(jetstream, f"OBJ_{fresh_name}") == before


@pytest.mark.fault("N18")
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_age": 3600 * 10**9}, "remove the limit"),
        ({"max_msgs": 1000}, "remove the limit"),
        ({"discard": "old"}, "set discard to new"),
        ({"allow_direct": False}, "direct reads"),
        ({"allow_rollup_hdrs": False}, "roll-ups"),
        ({"allow_msg_ttl": False}, "message TTLs"),
        ({"sealed": True}, "takes no writes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
async def test_a_worker_refuses_a_bucket_that_would_lose_blobs(
    jetstream: JetStream,
    connection: Connection,
    fresh_name: str,
    settings: dict[str, Any],
    sentence: str,
) -> None:
    stream = f"OBJ_{fresh_name}"
    later = {"sealed": True} if settings.get("sealed") else {}
    made = wanted(fresh_name, **({} if later else settings))
    await jetstream.api(f"STREAM.CREATE.{stream}", made)
    if later:
        await jetstream.api(f"STREAM.UPDATE.{stream}", {**made, **later})

    with pytest.raises(UnavailableError, match=sentence) as refused:
        await Bucket(connection, fresh_name).store.check()

    assert fresh_name in refused.value.detail


@pytest.mark.fault("N18")
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_age": 3600 * 10**9}, "remove the limit"),
        ({"discard": "old"}, "set discard to new"),
        ({"allow_atomic": False}, "atomic batches"),
        ({"allow_msg_ttl": False}, "message TTLs"),
        ({"max_msgs_per_subject": 5}, "a history of one"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
async def test_a_worker_refuses_a_bucket_that_would_lose_or_mix_up_records(
    jetstream: JetStream,
    connection: Connection,
    fresh_name: str,
    settings: dict[str, Any],
    sentence: str,
) -> None:
    made = {**record_stream(fresh_name, BucketLocation(bucket=fresh_name)), **settings}
    await jetstream.api(f"STREAM.CREATE.KV_{fresh_name}", made)

    with pytest.raises(UnavailableError, match=sentence):
        await KeyValueRecordStore(
            JetStream(connection, Inbox(connection)), fresh_name, new_id=lambda: "n"
        ).check()


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
        ("blobs", "", ("blobs", "packs", "holdfast", "snapshots")),
        ("media", "", ("media", "media-packs", "holdfast", "media-snapshots")),
        ("blobs", "test", ("test_blobs", "test_packs", "test_holdfast", "test_snapshots")),
    ],
)
def test_the_buckets_of_a_deployment_have_names_of_their_own(
    bucket: str, prefix: str, expected: tuple[str, str, str, str]
) -> None:
    names = bucket_names(bucket, prefix)

    assert (names.blobs, names.packs, names.records, names.snapshots) == expected
