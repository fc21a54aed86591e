"""Hypothesis strategies for messages, read off the messages' own types and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec.inspect as mi
from hypothesis import strategies as st

from holdfast.domain.digest import DIGEST_PATTERN

if TYPE_CHECKING:
    import msgspec

StructT = TypeVar("StructT", bound="msgspec.Struct")


def messages(kind: type[StructT]) -> st.SearchStrategy[StructT]:
    """Valid messages of type ``kind``; optional fields come and go."""
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
        case mi.ListType(item_type=item, max_length=longest):
            return st.lists(_value(item), max_size=min(longest or 4, 4))
        case mi.IntType(ge=lowest, le=highest):
            return st.integers(min_value=lowest, max_value=highest)
        case mi.StrType():
            return _text(info)
        case mi.LiteralType(values=values):
            return st.sampled_from(values)
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
    return st.from_regex(info.pattern, fullmatch=True).filter(
        lambda text: shortest <= len(text) <= (longest or len(text))
    )
