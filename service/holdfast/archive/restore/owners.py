"""The owners of restored files: as recorded, as given, or the one who restores.

Why: docs/decisions.md, "What a client made comes back without privileges".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from holdfast.errors import InvalidError
from holdfast.form.entries import MAX_OWNER

_PAIR: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10})")


Owners = Literal["keep", "current"] | tuple[int, int]
"""``keep``: the recorded ones; a user not root gets files of their own, with a warning.

``current``: the user who restores. A pair: this user and this group.
"""

Privileges = Literal["never", "owned", "always"]
"""Where files keep privileges beyond those of their users.

They are set-user-ID and set-group-ID bits, and the attributes ``security.*`` (capabilities among
them) and ``trusted.*``. ``owned``: where the owner is the recorded one, or has been chosen for that
one. ``always``: also where another one was asked for, but not where he could not be had.
"""


def parse_owners(text: str) -> Owners:
    """The meaning of ``keep``, ``current`` or ``uid:gid`` (numbers). Raises InvalidError."""
    if text == "keep":
        return "keep"
    if text == "current":
        return "current"
    pair = _PAIR.fullmatch(text)
    if pair is None or max(map(int, pair.groups())) > MAX_OWNER:
        msg = f"{text[:64]!r} is not an owner: keep, current, or two numbers such as 1000:1000"
        raise InvalidError(msg)
    return int(pair[1]), int(pair[2])


@dataclass(frozen=True, slots=True)
class Owner:
    """``ids`` are the (uid, gid) to give an entry, None for those it gets by being made.

    ``trusted`` tells whether privileges may stay where they are ``owned``: only if the owner is
    the recorded one or has been chosen for that one, for set-ID bits lend the owner's rights.
    ``withheld`` is True where another owner was recorded and cannot be set.
    """

    ids: tuple[int, int] | None
    trusted: bool
    withheld: bool = False

    def keeps(self, privileges: Privileges) -> bool:
        """Whether what is restored keeps its privileges."""
        if privileges == "always":
            return not self.withheld
        return self.trusted and privileges == "owned"


def chosen_privileges(*, by_client: bool, asked: bool) -> Privileges:
    """The rights of a restore: a client may claim anything of files it cannot make."""
    if asked:
        return "always"
    return "never" if by_client else "owned"


def owner_of(owners: Owners, recorded: tuple[int, int], user: tuple[int, int]) -> Owner:
    """The owner of an entry of ``recorded``, when ``user`` (effective uid and gid) restores it."""
    if owners == "current":
        return Owner(None, trusted=recorded == user)
    if owners != "keep":
        return Owner(owners, trusted=recorded == owners)
    is_possible = user[0] == 0 or recorded == user
    return Owner(recorded if is_possible else None, trusted=is_possible, withheld=not is_possible)
