"""The entries that a user excludes: patterns in gitignore's syntax, and caches.

As in git the last pattern that matches an entry decides, each directory is asked about before what
is in it, and what is in an excluded one cannot be included again. Bytes are compared, not text.
An entry's path decides, and its kind as its directory has it: excluded entries need not be looked
at. Patterns are read in ``patterns``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from holdfast.archive.chain import open_quietly
from holdfast.archive.create.patterns import parse_pattern, shown_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CACHE_TAG: Final = b"CACHEDIR.TAG"
_CACHE_SIGNATURE: Final = b"Signature: 8a477f597d28d172789f06886806bc55"


class Excludes:
    """The compiled patterns, and which of them have matched something. Used by one thread."""

    def __init__(self, patterns: Sequence[str | bytes]) -> None:
        """Raises InvalidError for a pattern that is too long or can never match."""
        parsed = [(text, parse_pattern(text)) for text in patterns]
        self._texts = [text for text, pattern in reversed(parsed) if pattern is not None]
        self._last_first = [
            (pattern.groups[0][0] if pattern.is_name else None, pattern)
            for _, pattern in reversed(parsed)
            if pattern is not None
        ]
        self._unmatched = set(range(len(self._last_first)))

    def leaves_out(self, path: bytes, is_directory: Callable[[], bool]) -> bool:
        """Whether the entry ``path`` is excluded; a directory with everything below it.

        The directories that it is in are not: they were asked about before. ``is_directory`` is
        asked only where that makes a difference.
        """
        components = path.split(b"/")
        name = components[-1]
        for number, (is_named, pattern) in enumerate(self._last_first):
            # Most patterns are of names, and most entries match none: those two cost least.
            if not (pattern.matches(components) if is_named is None else is_named(name)):
                continue
            if pattern.directories_only and not is_directory():
                continue
            if self._unmatched:
                self._note(number, components, is_directory)
            return not pattern.negated
        return False

    def unmatched(self) -> list[str]:
        """The patterns that have matched nothing so far, for people, in the order given.

        One that matches what a later one decides has matched.
        """
        return [
            shown_pattern(self._texts[number]) for number in sorted(self._unmatched, reverse=True)
        ]

    def _note(
        self, first: int, components: Sequence[bytes], is_directory: Callable[[], bool]
    ) -> None:
        """Remember that pattern ``first`` matches, and which of those that it overrules do."""
        self._unmatched.discard(first)
        for number in [number for number in self._unmatched if number > first]:
            pattern = self._last_first[number][1]
            fits = (
                pattern.groups[0][0](components[-1])
                if pattern.is_name
                else pattern.matches(components)
            )
            if fits and not (pattern.directories_only and not is_directory()):
                self._unmatched.discard(number)


def is_cache(directory_fd: int) -> bool:
    """Whether a directory is tagged as a cache (bford.info/cachedir): its content can be rebuilt.

    An unreadable one is no tag.
    """
    try:
        fd = open_quietly(
            CACHE_TAG,
            os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
            directory_fd,
        )
    except OSError:
        return False
    try:
        return os.read(fd, len(_CACHE_SIGNATURE)) == _CACHE_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(fd)
