"""How many examples a property is tried with: a few as a rule, more in ``make check``.

They are the same each time, so that a change fails by what it did. ``LENGTH=5`` tries five times as
many, drawn anew, also of what is drawn at length: ``make check LENGTH=5``.
"""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import settings

QUICK: Final = "quick"
THOROUGH: Final = "thorough"

_LENGTH: Final = int(os.environ.get("LENGTH", "1"))
_ALL: Final = 100
_MANY: Final = 40 * _LENGTH
_FEW: Final = 10

# Nothing is timed: a machine that does other things as well makes no test fail.
for _name, _count in ((THOROUGH, _MANY), (QUICK, _FEW)):
    settings.register_profile(_name, deadline=None, max_examples=_count, derandomize=_LENGTH == 1)


def at_length(few: int, many: int) -> list[object]:
    """For ``parametrize``: ``few`` each time, and ``many`` or more where tests may be long."""
    return [few, pytest.param(_LENGTH * many, marks=pytest.mark.long)]


def examples(count: int) -> settings:
    """For a property worth ``count`` examples where others are worth a hundred, ten at least.

    Each profile tries its share of them. Use it as ``@examples(60)``.
    """
    share = count * settings().max_examples // _ALL
    return settings(max_examples=max(share, min(count, _FEW)))
