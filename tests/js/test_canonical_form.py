"""A JavaScript service that writes its state by RFC 8785 has the same hash of it."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

from tests.js.scripts import run_script_here

from holdfast.domain.canonical import json_of, state_hash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DOCUMENTS = 10_000


def document(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    kinds: list[Callable[[random.Random], Any]] = [number, integer, text, literal]
    if depth < 5 and rng.random() < 0.6:
        count = rng.randrange(5)
        if rng.random() < 0.5:
            return [document(rng, depth + 1) for _ in range(count)]
        return {text(rng): document(rng, depth + 1) for _ in range(count)}
    return rng.choice(kinds)(rng)


def literal(rng: random.Random) -> bool | None:
    """Null, true or false."""
    return rng.choice([None, True, False])


def number(rng: random.Random) -> float:
    """Any double: half of them of any size, half as people write them."""
    if rng.random() < 0.5:
        return round(rng.uniform(-1e6, 1e6), rng.randrange(9))
    while True:
        (found,) = struct.unpack(">d", rng.randbytes(8))
        if found - found == 0:  # neither infinite nor NaN
            return float(found)


def integer(rng: random.Random) -> int:
    """One that a double holds."""
    return rng.randint(-(2**53) + 1, 2**53 - 1) >> rng.randrange(53)


def text(rng: random.Random) -> str:
    """Controls, ASCII, what sorts otherwise in UTF-8 and UTF-16, but no surrogates."""
    ranges = [(0, 0x1F), (0x20, 0x7F), (0x80, 0x7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randrange(8)))


def test_ten_thousand_documents_hash_as_npm_canonicalize_has_them(tmp_path: Path) -> None:
    rng = random.Random(8785)  # noqa: S311  (repeatable)
    documents = [document(rng) for _ in range(DOCUMENTS)]
    lines = tmp_path / "documents"
    lines.write_bytes(b"\n".join(json_of(one) for one in documents))

    hashes = run_script_here("canonicalize.mjs", str(lines))

    assert hashes == [state_hash(one) for one in documents]
