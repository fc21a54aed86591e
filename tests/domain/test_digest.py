"""One blob has one address, spelled in one way."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.digest import digest_of, is_digest, parse_digest, to_object_digest
from holdfast.errors import InvalidError

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

NOT_DIGESTS = [
    pytest.param("", id="empty"),
    pytest.param(EMPTY.upper(), id="capitals"),
    pytest.param(EMPTY[:-1], id="one short"),
    pytest.param(EMPTY + "0", id="one long"),
    pytest.param(EMPTY + "\n", id="trailing newline"),
    pytest.param("\n" + EMPTY[1:], id="leading newline"),
    pytest.param(" " + EMPTY[1:], id="space"),
    pytest.param("../" + EMPTY[3:], id="path upwards"),
    pytest.param("/" + EMPTY[1:], id="absolute path"),
    pytest.param("\N{ARABIC-INDIC DIGIT ONE}" + EMPTY[1:], id="digit of another script"),
    pytest.param("\N{FULLWIDTH LATIN SMALL LETTER A}" + EMPTY[1:], id="full-width letter"),
    pytest.param("\0" + EMPTY[1:], id="NUL"),
    pytest.param("g" + EMPTY[1:], id="not hexadecimal"),
    pytest.param("*", id="wildcard"),
    pytest.param("sha256:" + EMPTY, id="with a scheme"),
]


def test_the_address_of_nothing_is_the_one_fips_180_gives() -> None:
    assert digest_of(b"") == EMPTY


@given(st.binary())
def test_an_address_is_spelled_as_a_digest_and_parses_to_itself(data: bytes) -> None:
    digest = digest_of(data)

    assert is_digest(digest)
    assert parse_digest(digest) == digest == hashlib.sha256(data).hexdigest()


@given(st.binary(max_size=64))
def test_the_address_does_not_depend_on_the_kind_of_buffer(data: bytes) -> None:
    assert digest_of(bytearray(data)) == digest_of(memoryview(data)) == digest_of(data)


@pytest.mark.fault("I07")
@pytest.mark.parametrize("text", NOT_DIGESTS)
def test_any_other_spelling_is_invalid(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(InvalidError):
        parse_digest(text)


@given(st.text())
def test_text_is_a_digest_exactly_when_it_parses(text: str) -> None:
    try:
        parse_digest(text)
    except InvalidError:
        assert not is_digest(text)
    else:
        assert is_digest(text)


def test_an_object_digest_is_written_as_other_clients_write_it() -> None:
    # From ADR-20: "SHA-256=" and padded URL-safe base64 of the hash.
    assert to_object_digest(parse_digest(EMPTY)) == (
        "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="
    )


@given(st.binary())
def test_an_object_digest_carries_the_same_hash(data: bytes) -> None:
    scheme, _, text = to_object_digest(digest_of(data)).partition("=")

    assert scheme == "SHA-256"
    assert base64.urlsafe_b64decode(text) == hashlib.sha256(data).digest()
