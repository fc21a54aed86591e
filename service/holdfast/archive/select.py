"""The entries of a snapshot wanted: exact paths, and globs on bytes.

A pattern is a path relative to the app's directory. A directory that it names stands for all that
is below. In a glob ``*`` and ``?`` (one UTF-8 character) and ``[...]`` stay within one name, and
``**`` as a whole name stands for any number of directories. A path that exists as it is written is
meant, too, even if it looks like a glob.

All patterns together are one automaton that reads a path name by name, so what an entry costs does
not grow with the number of exact paths, and no pattern can make matching take exponential time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.archive.paths import is_below, parse_path, path_text
from holdfast.errors import NotFoundError, TooLargeError
from holdfast.form.entries import order_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MAX_SELECT_PATTERNS: Final = 10_000
_MAGIC: Final = re.compile(rb"[*?\[]")
_ANY_DEPTH: Final = b"**"
_CHARACTER: Final = rb"(?>[\x00-\x2e\x30-\x7f]|[\xc0-\xff][\x80-\xbf]*+|[\x80-\xbf])"
_TOKEN: Final = re.compile(rb"\*+|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[", re.DOTALL)


@dataclass(slots=True, eq=False)
class _Node:
    """A state: the names that lead on, and the patterns that end here.

    A path here is also in ``anywhere``, the state of a ``**``, which every name leads back to.
    """

    loops: bool = False
    literals: dict[bytes, _Node] = field(default_factory=dict)
    globs: list[tuple[re.Pattern[bytes], _Node]] = field(default_factory=list)
    anywhere: _Node | None = None
    ends: list[int] = field(default_factory=list)

    def then(self, name: bytes) -> _Node:
        """The state behind one name of a pattern, made if need be."""
        if name == _ANY_DEPTH:
            self.anywhere = self.anywhere or _Node(loops=True)
            return self if self.loops else self.anywhere
        if not _MAGIC.search(name):
            return self.literals.setdefault(name, _Node())
        state = _Node()
        self.globs.append((_compiled(name), state))
        return state

    def reached_by(self, name: bytes) -> Iterator[_Node]:
        """The states that an entry's name leads to from here."""
        if self.loops:
            yield self
        literal = self.literals.get(name)
        if literal is not None:
            yield literal
        for pattern, state in self.globs:
            if pattern.fullmatch(name):
                yield state


_State = tuple[_Node, ...] | None
"""The patterns' progress in a directory's path. None: all below is selected."""


class Selection:
    """A selection by patterns (none at all: everything), but for names left out at the top.

    Remembers which patterns have selected something. Used by one thread.
    """

    def __init__(
        self, patterns: Iterable[str | bytes] = (), *, leave_out: Iterable[str] = ()
    ) -> None:
        """Raises InvalidError for what cannot be a path, TooLargeError for too many patterns."""
        self._patterns = list(dict.fromkeys(map(parse_path, patterns)))
        if len(self._patterns) > MAX_SELECT_PATTERNS:
            raise TooLargeError(f"{len(self._patterns)} paths are more than {MAX_SELECT_PATTERNS}")
        self._left_out = [name for name in map(parse_path, leave_out) if name]
        self._matched: set[int] = set()
        self._start = _Node()
        for number, pattern in enumerate(self._patterns):
            self._add(number, pattern)
        self._parent: bytes | None = None
        self._state: _State = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing was asked for in particular, so that everything is wanted."""
        return not self._patterns

    def selects(self, path: bytes) -> bool:
        """Whether the entry ``path`` is wanted for itself, not only for what lies below it."""
        if any(is_below(path, name) for name in self._left_out):
            return False
        if not self._patterns:
            return True
        if not path:
            return self._selects_root()
        parent, _, name = path.rpartition(b"/")
        if parent != self._parent:
            self._parent, self._state = parent, self._read(parent)
        return self._step(self._state, name) is None

    def may_select_below(self, path: bytes) -> bool:
        """Whether anything below the directory ``path`` could be wanted."""
        return self._read(path) != ()

    def indices(self, paths: Sequence[bytes]) -> Sequence[int]:
        """The indices of those of ``paths`` (ascending, as in a page) that are wanted."""
        everything = range(len(paths))
        first, last = order_key(paths[0]), order_key(paths[-1])
        if not self._patterns and not any(
            last >= name and first < name + b"\1" for name in map(order_key, self._left_out)
        ):
            return everything
        return [index for index in everything if self.selects(paths[index])]

    def pages(
        self, first_paths: Sequence[bytes], page_of_path: Callable[[bytes], int]
    ) -> Sequence[int]:
        """The numbers of the pages that may list something wanted, ascending.

        ``first_paths`` are those of all pages.
        """
        wanted: set[int] = set()
        for prefix in {_fixed_part(pattern) for pattern in self._patterns} or {b""}:
            number = page_of_path(prefix)
            wanted.add(number)
            while (number := number + 1) < len(first_paths):
                if not is_below(first_paths[number], prefix):
                    break
                wanted.add(number)
        return sorted(wanted)

    def check_all_matched(self) -> None:
        """Raises NotFoundError, which names a pattern that has selected nothing so far."""
        for number, pattern in enumerate(self._patterns):
            if number not in self._matched:
                raise NotFoundError(f"the snapshot has nothing that matches {path_text(pattern)!r}")

    def _add(self, number: int, pattern: bytes) -> None:
        names = pattern.split(b"/") if pattern else []
        node = self._start
        for name in names:
            node = node.literals.setdefault(name, _Node())
        node.ends.append(number)
        if not _MAGIC.search(pattern):
            return
        if names[-1] == _ANY_DEPTH:
            names.append(b"*")
        node = self._start
        for name in names:
            node = node.then(name)
        node.ends.append(number)

    def _read(self, path: bytes) -> _State:
        if not self._patterns or self._selects_root():
            return None
        state: _State = _closed([self._start])
        for name in path.split(b"/") if path else ():
            state = self._step(state, name)
            if not state:
                break
        return state

    def _selects_root(self) -> bool:
        self._matched.update(self._start.ends)
        return bool(self._start.ends)

    def _step(self, state: _State, name: bytes) -> _State:
        if state is None:
            return None
        reached = _closed([after for node in state for after in node.reached_by(name)])
        ends = [number for node in reached for number in node.ends]
        self._matched.update(ends)
        return None if ends else reached


def _closed(nodes: Iterable[_Node]) -> tuple[_Node, ...]:
    """The states with those that one is in at the same time, each once."""
    found: dict[_Node, None] = {}
    for node in nodes:
        found[node] = None
        if node.anywhere is not None:
            found[node.anywhere] = None
    return tuple(found)


def _fixed_part(pattern: bytes) -> bytes:
    """The names in front that are no globs: everything that matches lies there or below."""
    names = pattern.split(b"/")
    fixed = 0
    while fixed < len(names) and not _MAGIC.search(names[fixed]):
        fixed += 1
    return b"/".join(names[:fixed])


def _compiled(name: bytes) -> re.Pattern[bytes]:
    """One name of a glob. All stars but the last are atomic, so that matching stays quadratic."""
    parts = [b""]
    for token in _TOKEN.findall(name):
        if token.startswith(b"*"):
            parts.append(b"")
        else:
            parts[-1] += _expression(token)
    first, *others = parts
    text = first + b"".join([rb"(?>.*?" + part + rb")" for part in others[:-1]])
    text += b"".join([rb".*" + part for part in others[-1:]])
    return re.compile(text, re.DOTALL)


def _expression(token: bytes) -> bytes:
    if token == b"?":
        return _CHARACTER
    if len(token) > 2 and token.startswith(b"[") and token.endswith(b"]"):
        return _character_class(token[1:-1])
    return re.escape(token)


def _character_class(inside: bytes) -> bytes:
    """One byte of (or with ``!`` in front, not of) those named, singly or as ``a-z``."""
    negated = inside.startswith(b"!")
    inside = inside[negated:]
    members: set[int] = set()
    position = 0
    while position < len(inside):
        low = high = inside[position]
        if position + 2 < len(inside) and inside[position + 1 : position + 2] == b"-":
            high = inside[position + 2]
            position += 2
        members.update(range(low, high + 1))
        position += 1
    chosen = [byte for byte in range(256) if (byte in members) != negated]
    return b"[" + b"".join([b"\\x%02x" % byte for byte in chosen]) + b"]" if chosen else b"(?!)"
