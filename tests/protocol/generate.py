"""Hypothesis strategies for messages, read off the messages' own types and bounds."""

from __future__ import annotations

import functools
from typing import Any, Final, TypeVar, get_args

import msgspec
import msgspec.inspect as mi
from hypothesis import strategies as st

from holdfast.domain.digest import DIGEST_PATTERN
from holdfast.protocol import snapshots
from holdfast.protocol.message import WireKey

StructT = TypeVar("StructT", bound=msgspec.Struct)

WIRE_PATTERNS: Final = {
    name: get_args(kind)[1].pattern
    for name, kind in (
        ("app", snapshots.WireApp),
        ("key", WireKey),
        ("id", snapshots.WireRestore),
        ("node", snapshots.WireNode),
        ("value", snapshots.WireLabelValue),
    )
}


def messages(kind: type[StructT]) -> st.SearchStrategy[StructT]:
    """Valid messages of type ``kind``; optional fields come and go."""
    return _of_kind(kind)


@functools.cache  # a strategy is worked out once, and drawn from hundreds of times
def _of_kind(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    return _struct(info)


def _struct(info: mi.StructType) -> st.SearchStrategy[Any]:
    required = {field.name: _value(field.type) for field in info.fields if field.required}
    optional = {field.name: _value(field.type) for field in info.fields if not field.required}
    fields = st.fixed_dictionaries(required, optional=optional)
    return fields.map(lambda values: info.cls(**values))


def _value(info: mi.Type) -> st.SearchStrategy[Any]:
    match info:
        case mi.Metadata(type=inner):
            return _value(inner)
        case mi.StructType():
            return _struct(info)
        case mi.UnionType(types=types):
            return st.one_of(*map(_value, types))
        case mi.ListType(item_type=item, min_length=shortest, max_length=longest):
            few = 1 if isinstance(item, mi.StructType) else 3
            return st.lists(_value(item), min_size=shortest or 0, max_size=min(longest or few, few))
        case mi.DictType(key_type=key, value_type=value):
            return st.dictionaries(_value(key), _value(value), max_size=2)
        case _:
            return _scalar(info)


def _scalar(info: mi.Type) -> st.SearchStrategy[Any]:
    match info:
        case mi.IntType(ge=lowest, le=highest):
            smallest = -(2**63) if lowest is None else lowest
            return st.integers(min_value=smallest, max_value=highest or 2**63 - 1)
        case mi.FloatType(ge=lowest, le=highest):
            return st.floats(
                min_value=lowest, max_value=highest, allow_nan=False, allow_infinity=False
            )
        case mi.StrType():
            return _text(info)
        case mi.BytesType(max_length=longest):
            return st.binary(max_size=min(longest or 16, 16))
        case mi.LiteralType(values=values):
            return st.sampled_from(values)
        case mi.RawType():
            return _JSON.map(msgspec.json.encode).map(msgspec.Raw)
        case mi.BoolType():
            return st.booleans()
        case mi.NoneType():
            return st.none()
        case _:
            message = f"no strategy for {info}"
            raise AssertionError(message)


def _text(info: mi.StrType) -> st.SearchStrategy[str]:
    shortest, longest = info.min_length or 0, info.max_length
    if info.pattern is None:
        # Replies' free text may travel as a header, so it is printable.
        printable = st.characters(codec="utf-8", exclude_categories=("C", "Z"))
        return st.text(printable, min_size=shortest, max_size=longest)
    if info.pattern == DIGEST_PATTERN:
        return st.binary(min_size=32, max_size=32).map(bytes.hex)  # the same, ten times as fast
    return _matching(info.pattern, shortest, longest)


@functools.cache
def _matching(pattern: str, shortest: int, longest: int | None) -> st.SearchStrategy[str]:
    if pattern in _FAST:
        return _FAST[pattern]
    return st.from_regex(pattern, fullmatch=True).filter(
        lambda text: shortest <= len(text) <= (longest or len(text))
    )


_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text("aé\n", max_size=4),
    lambda values: (
        st.lists(values, max_size=2) | st.dictionaries(st.text("ab"), values, max_size=2)
    ),
    max_leaves=3,
)
_NAMES: Final = st.text("abcXYZ019._-", min_size=1, max_size=20).map(lambda text: f"a{text}")
_IDS: Final = st.uuids(version=4).map(lambda uuid: str(uuid)[:14] + "7" + str(uuid)[15:])
_FAST: Final = {
    WIRE_PATTERNS["app"]: _NAMES,
    WIRE_PATTERNS["key"]: st.tuples(_NAMES, _IDS).map(":".join),
    WIRE_PATTERNS["id"]: _IDS,
    WIRE_PATTERNS["node"]: _NAMES,
    WIRE_PATTERNS["value"]: st.text(
        st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20
    ),
}
"""Patterns whose texts are made faster than from the pattern: it is run thousands of times."""
