"""A store is named by a URL, and a typo in one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidError
from holdfast.stores.location import (
    BucketLocation,
    DiskLocation,
    Location,
    MemoryLocation,
    parse_location,
)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("memory://", MemoryLocation()),
        ("disk:///srv/blobs", DiskLocation(Path("/srv/blobs"))),
        ("disk:///srv/my%20blobs", DiskLocation(Path("/srv/my blobs"))),
        ("nats://blobs", BucketLocation(bucket="blobs")),
        ("nats://My_blobs-2/", BucketLocation(bucket="My_blobs-2")),
        ("nats://blobs?replicas=3", BucketLocation(bucket="blobs", replicas=3)),
        (
            "nats://blobs?replicas=5&storage=memory",
            BucketLocation(bucket="blobs", replicas=5, storage="memory"),
        ),
        ("nats://blobs?max_bytes=-1", BucketLocation(bucket="blobs", max_bytes=-1)),
        ("nats://blobs?max_bytes=1000", BucketLocation(bucket="blobs", max_bytes=1000)),
        ("nats://blobs?max_bytes=10GiB", BucketLocation(bucket="blobs", max_bytes=10 * 2**30)),
        ("nats://blobs?max_bytes=2T", BucketLocation(bucket="blobs", max_bytes=2 * 2**40)),
        ("nats://blobs?states_max_bytes=1K", BucketLocation(bucket="blobs", states_max_bytes=1024)),
        ("nats://blobs?tags=ssd", BucketLocation(bucket="blobs", tags=("ssd",))),
        ("nats://blobs?tags=ssd,az:1,ssd", BucketLocation(bucket="blobs", tags=("ssd", "az:1"))),
        (
            "nats://blobs?replicas=3&tags=ssd,eu&cluster=EU-1",
            BucketLocation(bucket="blobs", replicas=3, tags=("ssd", "eu"), cluster="EU-1"),
        ),
    ],
)
def test_a_url_names_a_store(url: str, location: Location) -> None:
    assert parse_location(url) == location


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "memory://"),
        ("memory", "memory://"),
        ("memory://x", "memory://"),
        ("memory://?a=b", "memory://"),
        ("disk://", "absolute"),
        ("disk://srv/blobs", "absolute"),
        ("disk:srv/blobs", "absolute"),
        ("disk:///srv?x=1", "absolute"),
        ("s3://bucket", "memory://"),
        ("nats://", "1 to 64"),
        ("nats://a.b", "1 to 64"),
        ("nats://a*", "1 to 64"),
        ("nats://user@blobs", "1 to 64"),
        ("nats://blobs:4222", "1 to 64"),
        ("nats://" + "b" * 65, "1 to 64"),
        ("nats://blobs/path", "memory://"),
        ("nats://blobs?replica=3", "'replica'"),
        ("nats://blobs?replicas=0", "1 to 5"),
        ("nats://blobs?replicas=6", "1 to 5"),
        ("nats://blobs?replicas=", "1 to 5"),
        ("nats://blobs?replicas=3.0", "1 to 5"),
        ("nats://blobs?storage=tape", "file or memory"),
        ("nats://blobs?max_bytes=0", "max_bytes"),
        ("nats://blobs?max_bytes=-2", "max_bytes"),
        ("nats://blobs?max_bytes=lots", "max_bytes"),
        ("nats://blobs?max_bytes=1e9", "max_bytes"),
        ("nats://blobs?states_max_bytes=0", "states_max_bytes"),
        ("nats://blobs?replicas=3&replicas=5", "twice"),
        ("nats://blobs?tags=", "tags=ssd,eu"),
        ("nats://blobs?tags=ssd,,eu", "tags=ssd,eu"),
        ("nats://blobs?tags=ssd eu", "tags=ssd,eu"),
        ("nats://blobs?tags=a,b,c,d,e,f,g,h,i", "up to 8"),
        ("nats://blobs?cluster=", "name of a cluster"),
        ("nats://blobs?cluster=E U", "name of a cluster"),
        ("nats://blobs#x", "memory://"),
        ("nats://[", "memory://"),
    ],
)
def test_a_url_that_names_none_is_invalid_and_says_why(url: str, why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        parse_location(url)


@given(url=st.one_of(st.text(max_size=40), st.text(max_size=30).map("nats://b?{}".format)))
def test_any_text_is_a_location_or_invalid(url: str) -> None:
    try:
        location = parse_location(url)
    except InvalidError:
        return

    assert isinstance(location, MemoryLocation | DiskLocation | BucketLocation)
