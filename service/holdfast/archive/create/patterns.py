"""Patterns in gitignore's syntax, read and matched as gitignore(5) says.

A pattern that came with a request must not keep a worker busy, so matching never goes back: of
what is between two stars the first place that fits is taken, which is as good as any later one.
The same holds for ``*`` in a component and for ``**`` among components.

Why: docs/decisions.md, "Excludes are matched by a matcher of our own".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_PATTERN_CHARS: Final = 4096
MAX_COMPONENTS: Final = 128
"""Of one pattern. Each may be compared with each component of a path."""

_MAX_SHOWN_CHARS: Final = 80
_SLASH, _STAR = b"/", b"*"

type _Matches = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern. ``groups`` are what is between its ``**``, as matchers of one component each.

    ``is_name`` patterns are only one matcher, of a path's last component.
    """

    negated: bool
    directories_only: bool
    is_name: bool
    groups: tuple[tuple[_Matches, ...], ...]

    def matches(self, components: Sequence[bytes]) -> bool:
        """Whether the path of ``components`` is what the pattern, if not of a name, means."""
        first, *rest = self.groups
        if not rest:
            return len(components) == len(first) and _fits(first, components, 0)
        if len(components) < len(first) or not _fits(first, components, 0):
            return False
        *between, last = rest
        at = len(first)
        for group in between:
            end = len(components) - len(group)
            while at <= end and not _fits(group, components, at):
                at += 1
            at += len(group)
        # A ** at the end stands for at least one component, any other one may be nothing.
        start = len(components) - max(len(last), 1)
        return start >= at and _fits(last, components, len(components) - len(last))


def _fits(group: Sequence[_Matches], components: Sequence[bytes], at: int) -> bool:
    return all(matches(components[at + number]) for number, matches in enumerate(group))


def parse_pattern(text: str | bytes) -> Pattern | None:
    """The pattern that a line says; None for blank lines and comments.

    Text is UTF-8, or what ``os.fsdecode`` made of bytes that are not.

    Raises InvalidError if it is too long, or can never match because it is malformed.
    """
    line = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    if len(line.decode("utf-8", "replace")) > MAX_PATTERN_CHARS or b"\0" in line:
        msg = f"a pattern has at most {MAX_PATTERN_CHARS} characters, none of them NUL"
        raise InvalidError(msg)
    line = _without_blanks(line)
    if not line or line.startswith(b"#"):
        return None
    negated = line.startswith(b"!")
    line = line[negated:]
    directories_only = line.endswith(b"/")
    line = line.removesuffix(b"/")
    is_name = b"/" not in line
    try:
        tokens = list(_tokens(line.removeprefix(b"/")))
    except ValueError:
        msg = f"the pattern {shown_pattern(text)} is malformed: it could never match"
        raise InvalidError(msg) from None
    groups = _groups(tokens)
    if sum(map(len, groups)) > MAX_COMPONENTS:
        raise InvalidError(
            f"the pattern {shown_pattern(text)} has more than {MAX_COMPONENTS} components"
        )
    if is_name:
        groups = ((_component(tokens),),)
    return Pattern(negated, directories_only, is_name, groups)


def shown_pattern(text: str | bytes) -> str:
    """A pattern for people, in quotes and not too long."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return repr(raw.decode("utf-8", "replace")[:_MAX_SHOWN_CHARS])


def _without_blanks(line: bytes) -> bytes:
    """``line`` without trailing blanks, unless a backslash stands before them."""
    bare = line.rstrip(b" ")
    backslashes = len(bare) - len(bare.rstrip(b"\\"))
    return line[: len(bare) + 1] if backslashes % 2 else bare


def _groups(tokens: Sequence[bytes]) -> tuple[tuple[_Matches, ...], ...]:
    groups: list[list[_Matches]] = [[]]
    component: list[bytes] = []
    for token in (*tokens, _SLASH):
        if token != _SLASH:
            component.append(token)
            continue
        if len(component) > 1 and set(component) == {_STAR}:
            groups.append([])
        else:
            groups[-1].append(_component(component))
        component = []
    return tuple(map(tuple, groups))


def _component(tokens: Sequence[bytes]) -> _Matches:
    """A matcher of one component, which takes time in proportion to both lengths at most."""
    runs: list[list[bytes]] = [[]]
    for token in tokens:
        if token == _STAR:
            runs.append([])
        else:
            runs[-1].append(token)
    first, *rest = [(b"".join(run), len(run)) for run in runs]
    parts = [first[0]]
    if rest:
        *between, last = rest
        parts += [b"(?>.*?%b)" % run for run, length in between if length]
        parts.append(b".{%d,}+(?<=%b)" % (last[1], last[0]) if last[1] else b".*+")
    return re.compile(b"".join(parts), re.DOTALL).fullmatch


def _tokens(pattern: bytes) -> Iterator[bytes]:
    """Stars, slashes, and regular expressions of one byte each. Raises ValueError."""
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        at += 1
        if char == b"[":
            members, at = _bracket(pattern, at)
            yield _one_of(members)
            continue
        if char == b"\\":
            char = _char(pattern, at)
            at += 1
            yield _SLASH if char == _SLASH else re.escape(char)
        elif char in (_STAR, _SLASH):
            yield char
        else:
            yield b"." if char == b"?" else re.escape(char)


def _char(pattern: bytes, at: int) -> bytes:
    if at >= len(pattern):
        raise ValueError("it ends too early")
    return pattern[at : at + 1]


def _bracket(pattern: bytes, at: int) -> tuple[frozenset[int], int]:
    """The bytes that the bracket expression whose inside begins at ``at`` matches, and its end."""
    negated = _char(pattern, at) in b"!^"
    at += negated
    members: set[int] = set()
    before: int | None = None  # of what may be a range
    start = at
    while (char := _char(pattern, at)) != b"]" or at == start:
        named = _CLASS.match(pattern, at)
        if named is not None:
            members |= _class(named[1])
            before, at = None, named.end()
            continue
        is_range = char == b"-" and before is not None and _char(pattern, at + 1) != b"]"
        at += is_range
        value, at = _literal(pattern, at)
        if is_range and before is not None:
            members.update(range(before, value + 1))
            before = None
        else:
            members.add(value)
            before = value
    return frozenset(range(256)) - members if negated else frozenset(members), at + 1


def _literal(pattern: bytes, at: int) -> tuple[int, int]:
    char = _char(pattern, at)
    if char == b"\\":
        at += 1
        char = _char(pattern, at)
    return char[0], at + 1


def _class(name: bytes) -> frozenset[int]:
    if name not in _CLASSES:
        raise ValueError("there is no such class of characters")
    return _CLASSES[name]


def _one_of(members: frozenset[int]) -> bytes:
    if not members:
        return b"(?!.)."
    return b"[%b]" % b"".join([b"\\x%02x" % value for value in sorted(members)])


_CLASS: Final = re.compile(rb"\[:([^\]]*):\]")
_DIGIT: Final = frozenset(b"0123456789")
_LOWER: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz")
_UPPER: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SPACE: Final = frozenset(b" \t\n\r")
_PRINT: Final = frozenset(range(0x20, 0x7F))
_CLASSES: Final = {
    b"alnum": _DIGIT | _LOWER | _UPPER,
    b"alpha": _LOWER | _UPPER,
    b"blank": frozenset(b" \t"),
    b"cntrl": frozenset(range(0x20)) | {0x7F},
    b"digit": _DIGIT,
    b"graph": _PRINT - _SPACE,
    b"lower": _LOWER,
    b"print": _PRINT,
    b"punct": _PRINT - _SPACE - _DIGIT - _LOWER - _UPPER,
    b"space": _SPACE,
    b"upper": _UPPER,
    b"xdigit": _DIGIT | frozenset(b"abcdefABCDEF"),
}
