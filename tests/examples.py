"""How many examples a property is tried with: a few as a rule, all of them in ``make check``."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

QUICK: Final = "quick"
THOROUGH: Final = "thorough"

_ALL: Final = 100
_FEW: Final = 10

# Nothing is timed: a machine that does other things as well makes no test fail.
settings.register_profile(THOROUGH, deadline=None, max_examples=_ALL)
settings.register_profile(QUICK, deadline=None, max_examples=_FEW)


def examples(count: int) -> settings:
    """For a property worth ``count`` examples and not a hundred; the quick profile tries a tenth.

    It tries ten where that is more. Use it as ``@examples(60)``.
    """
    share = count * settings().max_examples // _ALL
    return settings(max_examples=min(count, max(share, _FEW)))
