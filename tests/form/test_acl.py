"""Access control lists as attributes and as text: the same in both directions."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.form.acl import acl_text, acl_value, is_mode

RIGHTS = st.integers(0, 7)
IDS = st.integers(0, 2**32 - 2)


def value_of(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join([struct.pack("<HHI", *entry) for entry in entries])


def number_of(kind: bytes, name: bytes) -> int | None:
    return {b"user anna": 1001, b"group www": 33}.get(kind + b" " + name)


@given(
    base=st.tuples(RIGHTS, RIGHTS, RIGHTS, RIGHTS),
    users=st.dictionaries(IDS, RIGHTS, max_size=4),
    groups=st.dictionaries(IDS, RIGHTS, max_size=4),
)
def test_a_list_comes_back_from_its_text(
    base: tuple[int, int, int, int], users: dict[int, int], groups: dict[int, int]
) -> None:
    nobody = 2**32 - 1
    entries = [(1, base[0], nobody)]
    entries += [(2, rights, number) for number, rights in sorted(users.items())]
    entries += [(4, base[1], nobody)]
    entries += [(8, rights, number) for number, rights in sorted(groups.items())]
    entries += [(16, base[2], nobody)] if users or groups else []
    entries += [(32, base[3], nobody)]
    value = value_of(*entries)

    text = acl_text(value)

    assert text is not None
    assert acl_value(text, number_of) == value
    assert acl_value(text.replace(b",", b"\n") + b"\n", number_of) == value
    assert is_mode(value) == (not users and not groups)


@pytest.mark.parametrize(
    "text",
    [
        b"user::rw-,user:1001:r--,group::r--,group:33:rwx,mask::rwx,other::---",
        b"user::rw-\nuser:anna:r--\ngroup::r--\ngroup:www:rwx\nmask::rwx\nother::---\n",
        b"user::rw-,user:otto:r--:1001,group::r--,group:x:rwx:33,mask::rwx,other::---",
        b"u::rw-,u:1001:r--,g::r--,g:33:rwx,m::rwx,o::---",
        b"default:user::rw-,default:user:1001:r--,default:group::r--,default:group:33:rwx,"
        b"default:mask::rwx,default:other::---",
        b"# file: f\nuser::rw-\nuser:1001:r--\t#effective:r--\ngroup::r--\ngroup:33:rwx\n"
        b"mask:rwx\nother:---",
        b"other::---,mask::rwx,group:33:rwx,group::r--,user:1001:r--,user::rw-",
        b"user::rw-,user:1001:r--,group::r--,group:33:rwx,other::---",
    ],
)
def test_text_as_tars_have_it_is_understood(text: bytes) -> None:
    nobody = 2**32 - 1
    expected = value_of(
        (1, 6, nobody), (2, 4, 1001), (4, 4, nobody), (8, 7, 33), (16, 7, nobody), (32, 0, nobody)
    )

    assert acl_value(text, number_of) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"user::rw-",
        b"user::rw-,group::r--",
        b"user::rw-,user:nobody here:r--,group::r--,other::r--",
        b"user::rw-,user:1:r--,user:1:rw-,group::r--,other::r--",
        b"user::rw-,user:4294967295:r--,group::r--,other::r--",
        b"user::rw-,group::r--,other:5:r--",
        b"user::rwz,group::r--,other::r--",
        b"user::rw-,group::r--,other::r--,everyone@::r--",
    ],
)
def test_what_is_no_list_is_told_to_be_none(text: bytes) -> None:
    assert acl_value(text, number_of) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_a_list_or_none(data: bytes) -> None:
    text = acl_text(data)
    if text is not None:
        acl_value(text, number_of)
    acl_value(data, number_of)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2",
        value_of((1, 6, 0))[:-1],
        b"\3\0\0\0" + value_of((1, 6, 0))[4:],
        value_of((3, 1, 0)),
    ],
)
def test_a_damaged_attribute_has_no_text(value: bytes) -> None:
    assert acl_text(value) is None
