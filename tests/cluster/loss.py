"""Packets that are lost between servers: a rule of nftables, on their routes' ports alone.

The kernel's own TCP then waits and sends again, as on a bad network. They are dropped where they
arrive: of one that is dropped where it leaves TCP is told, and loses nothing. That needs root and
nftables: see ``missing``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TABLE: Final = "holdfast_faults"


@contextmanager
def losing(ports: Iterable[int], percent: int) -> Iterator[None]:
    """While inside, ``percent`` of the packets on loopback to or from ``ports`` are dropped."""
    listed = ", ".join(map(str, sorted(ports)))
    dropped = f"numgen random mod 100 < {percent} drop"
    _nft(
        # What a run that was killed left behind goes first.
        f"add table ip {_TABLE}\n"
        f"delete table ip {_TABLE}\n"
        f"add table ip {_TABLE}\n"
        f"add chain ip {_TABLE} arriving {{ type filter hook input priority 0; }}\n"
        f'add rule ip {_TABLE} arriving iifname "lo" tcp dport {{ {listed} }} {dropped}\n'
        f'add rule ip {_TABLE} arriving iifname "lo" tcp sport {{ {listed} }} {dropped}\n'
    )
    try:
        yield
    finally:
        _nft(f"delete table ip {_TABLE}\n")


def missing() -> str | None:
    """Why no packets can be lost here; None if they can."""
    if os.geteuid() != 0:
        return "root is needed"
    if shutil.which("nft") is None:
        return "there is no nft"
    try:
        with losing([1], 1):
            return None
    except subprocess.CalledProcessError as error:
        return f"nft: {error.stderr.strip().partition('\n')[0]}"


def _nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, check=True, capture_output=True, text=True)
