"""Which entries a user does not want archived: patterns in gitignore's syntax, and caches.

As in git the last pattern that matches an entry decides, each directory is asked about before what
is in it, and what is in an excluded one cannot be included again. Bytes are compared, not text.
How patterns are read is in ``patterns``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from holdfast.archive.patterns import parse_pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

CACHE_TAG: Final = b"CACHEDIR.TAG"
_CACHE_SIGNATURE: Final = b"Signature: 8a477f597d28d172789f06886806bc55"


class Excludes:
    """The compiled patterns."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises InvalidError for a pattern that is too long or can never match."""
        parsed = [parse_pattern(pattern) for pattern in patterns]
        self._last_first = [
            (pattern.groups[0][0] if pattern.is_name else None, pattern)
            for pattern in reversed(parsed)
            if pattern is not None
        ]

    def matches(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether the entry ``path`` is excluded; a directory with everything below it.

        The directories that it is in are not: they were asked about before.
        """
        components = path.split(b"/")
        name = components[-1]
        for is_named, pattern in self._last_first:
            if pattern.directories_only and not is_directory:
                continue
            # Most patterns are of names, and most entries match none: those two cost least.
            if pattern.matches(components) if is_named is None else is_named(name):
                return not pattern.negated
        return False


def is_cache(directory_fd: int) -> bool:
    """Whether a directory is tagged as a cache (bford.info/cachedir): its content can be rebuilt.

    What cannot be read is no tag.
    """
    try:
        fd = os.open(
            CACHE_TAG,
            os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
            dir_fd=directory_fd,
        )
    except OSError:
        return False
    try:
        return os.read(fd, len(_CACHE_SIGNATURE)) == _CACHE_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(fd)
