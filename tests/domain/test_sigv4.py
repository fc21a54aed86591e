"""A link is what botocore signs, and nothing else; what was altered by one bit is no link."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.link_keys import LinkKey, read_keys, secrets_at, signing_key, write_keys
from holdfast.domain.sigv4 import MAX_LINK_SECONDS, MAX_SKEW, LinkTarget, is_link, sign, verify_link
from holdfast.errors import ForbiddenError, InvalidError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW: Final = datetime(2026, 11, 29, 23, 15, 7, tzinfo=UTC)
HOST: Final = "files.example:7777"
KEY: Final = "summer"
SECRET: Final = "a secret of the summer"
TARGET: Final = LinkTarget(method="GET", host=HOST, path="/blobs/" + "a5" * 32, query="version=3")

paths = st.text(min_size=1, max_size=30).map(lambda text: "/store/" + quote(text, errors="ignore"))
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
queries = st.lists(st.tuples(words, words), max_size=4).map(
    lambda pairs: "&".join(f"{quote(a, '-_.~')}={quote(b, '-_.~')}" for a, b in pairs)
)


def signed(target: LinkTarget = TARGET, *, seconds: int = 60, secret: str = SECRET) -> LinkTarget:
    query = sign(target, key_id=KEY, secret=secret, now=NOW, seconds=seconds)
    return dataclasses.replace(target, query=query)


def accepted(target: LinkTarget, now: datetime = NOW) -> bool:
    try:
        verify_link(target, {KEY: SECRET}, now)
    except ForbiddenError:
        return False
    return True


def botocore_signature(target: LinkTarget) -> str:
    """That of the link ``target``, but for the signature that is in it."""
    query, _, _ = target.query.rpartition("&X-Amz-Signature=")
    request = AWSRequest(target.method, f"https://{HOST}{target.path}?{query}")
    request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
    signer = S3SigV4QueryAuth(Credentials(KEY, SECRET), "s3", "us-east-1")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


@given(st.sampled_from(["GET", "PUT"]), paths, queries)
def test_a_link_has_the_signature_that_botocore_gives_it(
    method: str, path: str, query: str
) -> None:
    link = signed(LinkTarget(method=method, host=HOST, path=path, query=query))

    assert link.query.endswith("&X-Amz-Signature=" + botocore_signature(link))
    assert accepted(link)


@given(
    st.sampled_from(["GET", "PUT"]),
    paths,
    st.dictionaries(words, words, max_size=3),
    st.integers(1, MAX_LINK_SECONDS),
    st.sampled_from(["us-east-1", "eu-central-1", "here"]),
)
def test_a_link_that_botocore_makes_is_accepted(
    method: str, path: str, params: dict[str, str], seconds: int, region: str
) -> None:
    request = AWSRequest(method, f"https://{HOST}{path}", params=params)

    S3SigV4QueryAuth(Credentials(KEY, SECRET), "s3", region, expires=seconds).add_auth(request)

    url = urlsplit(request.prepare().url)
    found = verify_link(
        LinkTarget(method=method, host=url.netloc, path=url.path, query=url.query),
        {KEY: SECRET},
        datetime.now(UTC),  # noqa: TID251  (as botocore does)
    )
    assert found.key_id == KEY
    assert found.expires_at - found.signed_at == timedelta(seconds=seconds)


def test_headers_that_were_signed_must_come_as_they_were() -> None:
    request = AWSRequest("PUT", f"https://{HOST}/blobs", headers={"Content-Type": "text/plain"})
    S3SigV4QueryAuth(Credentials(KEY, SECRET), "s3", "us-east-1").add_auth(request)
    url = urlsplit(request.prepare().url)
    now = datetime.now(UTC)  # noqa: TID251  (as botocore does)

    def asked(**headers: str) -> LinkTarget:
        names = {name.replace("_", "-"): text for name, text in headers.items()}
        return LinkTarget(method="PUT", host=HOST, path=url.path, query=url.query, headers=names)

    assert accepted(asked(content_type="text/plain", accept="*/*"), now)
    assert not accepted(asked(content_type="text/html"), now)
    assert not accepted(asked(), now)


def flipped(text: str) -> Iterator[str]:
    data = text.encode()
    for bit in range(len(data) * 8):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        yield altered.decode("latin-1")


@pytest.mark.fault("H01")
def test_a_link_with_any_bit_flipped_is_refused() -> None:
    link = signed()
    assert accepted(link)

    spoilt = [
        *(dataclasses.replace(link, method=method) for method in flipped(link.method)),
        *(dataclasses.replace(link, host=host) for host in flipped(link.host)),
        *(dataclasses.replace(link, path=path) for path in flipped(link.path)),
        *(dataclasses.replace(link, query=query) for query in flipped(link.query)),
    ]
    assert [one for one in spoilt if accepted(one)] == []


@pytest.mark.fault("H01")
def test_what_is_left_of_a_link_is_still_taken_for_one() -> None:
    link = signed()
    target = f"{link.path}?{link.query}"

    for altered in flipped(target):
        path, _, query = altered.partition("?")
        assert is_link(path, query)
    assert is_link(f"{link.path}%3F{link.query}", "")
    assert is_link(link.path + quote(f"?{link.query}"), "")
    assert is_link(link.path + quote(quote(f"?{link.query}")), "")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/store/X-Amz-foo", ""),
        ("/store/X-Amz-Date", ""),
        ("/store", "name=logs/X-Amz-Id"),
        ("/store", "prefix=X-Amz-"),
        ("/store", "name=X-Amz-Date%3D1"),
    ],
)
def test_a_name_that_begins_like_a_parameter_of_a_link_is_none(path: str, query: str) -> None:
    assert not is_link(path, query)


@pytest.mark.fault("H01")
def test_a_link_that_is_cut_off_anywhere_is_refused() -> None:
    link = signed()

    assert not any(
        accepted(dataclasses.replace(link, query=link.query[:length]))
        for length in range(len(link.query))
    )


@pytest.mark.fault("H01")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", id="another algorithm"),
        pytest.param("AWS4-HMAC-SHA256", "none", id="no algorithm"),
        pytest.param("SignedHeaders=host", "SignedHeaders=", id="no header"),
        pytest.param("SignedHeaders=host", "SignedHeaders=accept", id="another header"),
        pytest.param("summer", "winter", id="another key"),
        pytest.param("%2Fs3%2F", "%2Fec2%2F", id="another service"),
        pytest.param("&X-Amz-Date=", "&X-Amz-Date=20261129T231507Z&X-Amz-Date=", id="twice"),
        pytest.param("version=3", "version=3&X-Amz-Security-Token=x", id="one more"),
        pytest.param("version=3", "version=4", id="another version"),
        pytest.param("version=3", "version=3&version=4", id="a second version"),
    ],
)
def test_a_link_that_says_something_else_is_refused(old: str, new: str) -> None:
    link = signed()
    assert old in link.query

    assert not accepted(dataclasses.replace(link, query=link.query.replace(old, new, 1)))


@pytest.mark.fault("H02")
@pytest.mark.parametrize(
    "expires", ["-1", "0", "604801", "1e18", "1000000000000000000", "NaN", "", "60.5", "٦٠", "+60"]
)
def test_a_time_that_is_none_is_refused_whoever_signed_it(expires: str) -> None:
    """The signature is made right over what it says."""
    link = signed()
    query = link.query.replace("Expires=60", "Expires=" + quote(expires))
    signature = botocore_signature(dataclasses.replace(link, query=query))
    query = query.rpartition("=")[0] + "=" + signature

    assert not accepted(dataclasses.replace(link, query=query))


@pytest.mark.fault("H02")
def test_a_link_holds_from_when_it_was_signed_until_it_expires() -> None:
    link = signed(seconds=60)

    assert accepted(link, NOW + timedelta(seconds=59.9))
    with pytest.raises(ForbiddenError, match="expired"):
        verify_link(link, {KEY: SECRET}, NOW + timedelta(seconds=60))
    assert accepted(link, NOW - MAX_SKEW)
    assert not accepted(link, NOW - MAX_SKEW - timedelta(seconds=1))


@pytest.mark.parametrize("seconds", [0, -1, MAX_LINK_SECONDS + 1, 10**18])
def test_no_link_is_made_for_no_time_or_more_than_seven_days(seconds: int) -> None:
    with pytest.raises(InvalidError, match="seven days"):
        signed(seconds=seconds)


def key(id_: str, since: int, until: int | None = None) -> LinkKey:
    """``since`` and ``until`` are in minutes from now."""
    return LinkKey(
        id=id_,
        secret=f"the secret of {id_}, long",
        since=NOW + timedelta(minutes=since),
        until=None if until is None else NOW + timedelta(minutes=until),
    )


@pytest.mark.fault("H04")
def test_the_newest_key_signs_and_every_one_that_holds_is_believed() -> None:
    keys = [key("old", -9, 5), key("new", -1), key("next", 3), key("ended", -9, -1)]

    assert signing_key(keys, NOW).id == "new"
    assert set(secrets_at(keys, NOW)) == {"old", "new"}
    assert signing_key(keys, NOW + timedelta(minutes=4)).id == "next"


@pytest.mark.fault("H04")
def test_the_end_of_a_key_ends_its_links() -> None:
    keys = [key(KEY, -9, 1)]
    link = signed(secret=keys[0].secret, seconds=3600)

    verify_link(link, secrets_at(keys, NOW), NOW)
    later = NOW + timedelta(minutes=1)
    with pytest.raises(ForbiddenError, match="not valid"):
        verify_link(link, secrets_at(keys, later), later)


def test_without_a_key_that_holds_no_link_is_made() -> None:
    with pytest.raises(UnavailableError, match="link-key create"):
        signing_key([key("ended", -9, -1)], NOW)


def test_keys_are_read_as_they_were_written() -> None:
    keys = (key("old", -9, 5), key("new", -1))

    assert read_keys(write_keys(keys)) == keys


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"keys": [{"id": "a/b", "secret": "0123456789abcdef", "since": "2026-01-01T00:00:00Z"}]}',
        b'{"keys": [{"id": "a", "secret": "0123456789abcdef", "since": "2026-01-01T00:00:00"}]}',
        b'{"keys": [{"id": "a", "secret": "short", "since": "2026-01-01T00:00:00Z"}]}',
        write_keys([key("a", 0), key("a", 1)]),
    ],
)
def test_a_file_that_is_none_of_keys_is_refused_without_its_secrets(text: bytes) -> None:
    with pytest.raises(InvalidError) as caught:
        read_keys(text)

    assert "0123456789" not in caught.value.detail
