"""Text that strangers chose, as a terminal may be shown it."""

from __future__ import annotations

import re
from typing import Final

# C0, DEL and C1, the line and paragraph separators, what reorders text (Trojan Source), and bytes
# that are not UTF-8.
_CONTROL_RE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\udc80-\udcff]"
)


def escape_control(text: str) -> str:
    r"""``text`` with every control character written as Python would write it.

    A byte of a file's name that is not UTF-8 becomes ``\xNN``.
    """
    return _CONTROL_RE.sub(_escaped_character, text)


def _escaped_character(match: re.Match[str]) -> str:
    character = match.group()
    byte = ord(character) - 0xDC00  # as the interpreter passes it on
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else repr(character)[1:-1]
