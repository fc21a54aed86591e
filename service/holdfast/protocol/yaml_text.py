"""A tree of plain values as block YAML, so that people can read what is generated.

Only what the generated documents need: mappings with short text keys, lists, text, finite
numbers, booleans and null. Text is left bare only where no reader of YAML 1.1 or 1.2 could take it
for something else. A YAML library would be a run-time dependency for one file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

type Scalar = str | float | bool | None
type Value = Mapping[str, Value] | Sequence[Value] | Scalar

_BARE: Final = re.compile(r"[A-Za-z$_/](?:[\w$./() -]*[\w$./()])?", re.ASCII)
_WORDS_WITH_A_MEANING: Final = frozenset(
    {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
)
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def to_yaml(value: Mapping[str, Value]) -> str:
    """``value`` as a YAML document, in its own order. Keys are at most 100 characters long."""
    return "".join(f"{line}\n" for line in _block(value) or ["{}"])


def _block(value: Mapping[str, Value] | Sequence[Value]) -> list[str]:
    if isinstance(value, Mapping):
        entries = (_entry(f"{_scalar(key)}:", item) for key, item in value.items())
    else:
        entries = (_item(item) for item in value)
    return [line for lines in entries for line in lines]


def _item(value: Value) -> list[str]:
    if isinstance(value, str | int | float | None) or not value:
        return _entry("-", value)
    # A collection in a list begins beside its dash.
    first, *rest = _block(value)
    return [f"- {first}", *_indented(rest)]


def _entry(lead: str, value: Value) -> list[str]:
    if isinstance(value, str) and _reads_as_paragraphs(value):
        return [f"{lead} |-", *_indented(value.split("\n"))]
    if isinstance(value, str | int | float | None):
        return [f"{lead} {_scalar(value)}"]
    if not value:
        return [f"{lead} {{}}" if isinstance(value, Mapping) else f"{lead} []"]
    return [lead, *_indented(_block(value))]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" if line else "" for line in lines]


def _scalar(value: Scalar) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if _BARE.fullmatch(value) and value.lower() not in _WORDS_WITH_A_MEANING:
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def _reads_as_paragraphs(text: str) -> bool:
    """Whether a literal block holds ``text``: blocks cannot escape, and indentation is syntax."""
    lines = text.split("\n")
    return len(lines) > 1 and all(
        line.isprintable() and line == line.strip() and (line or 0 < number < len(lines) - 1)
        for number, line in enumerate(lines)
    )
