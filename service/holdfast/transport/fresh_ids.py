"""Identifiers that nobody else makes, whatever has forked since this module was imported.

Each is drawn from the operating system anew. A generator that is seeded once, as nats-py's is,
goes on alike in every child of a process that had it: two children would send the same ``Op-Id``.
"""

from __future__ import annotations

import os
import string
from typing import Final

ID_CHARS: Final = 22
"""As long as a NUID, which it is in form. 22 characters of these 62 carry at least 124 bits."""

_ALPHABET: Final = (string.digits + string.ascii_letters).encode()
# Every byte as a character: a draw and a look-up, no arithmetic. The first eight come up a little
# more often than the others.
_CHARACTERS: Final = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))


def new_id() -> str:
    """22 random characters of A-Z a-z 0-9."""
    return os.urandom(ID_CHARS).translate(_CHARACTERS).decode()
