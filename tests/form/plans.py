"""How a whole page is divided, run by run, as whoever writes it divides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.form.layout import CHUNKED_BYTES, has_own_frame, plan_run
from holdfast.form.sparse import padding

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Run:
    """Members ``start`` to ``stop`` (excluded) of the page lie in one frame of ``raw_size`` bytes.

    Of an own-frame file, which is the last then, only the header.
    """

    start: int
    stop: int
    raw_size: int


@dataclass(frozen=True, slots=True)
class Own:
    """The data of member ``index`` with padding, ``raw_size`` bytes: a frame, or several chunks.

    Padding belongs to the last chunk; ``chunked`` tells whether the data is cut.
    """

    index: int
    raw_size: int
    chunked: bool


def member_size(header_size: int, data_size: int) -> int:
    """All tar bytes of a member: header, data, padding."""
    return header_size + data_size + padding(data_size)


def plan_page(
    paths: Sequence[bytes], header_sizes: Sequence[int], data_sizes: Sequence[int]
) -> list[Run | Own]:
    """How the members of one page are divided, in the order of their tar bytes.

    ``data_sizes`` are without padding, and 0 for all but files.
    """
    members = list(zip(paths, header_sizes, data_sizes, strict=True))
    plan: list[Run | Own] = []
    start = 0
    while start < len(members):
        count, run_bytes = plan_run(members[start:])
        plan.append(Run(start, start + count, run_bytes))
        start += count
        data_size = data_sizes[start - 1]
        if has_own_frame(data_size):
            plan.append(Own(start - 1, member_size(0, data_size), data_size >= CHUNKED_BYTES))
    return plan
