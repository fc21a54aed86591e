"""Trouble for workers: they are paused, cut off and killed at random moments."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.relayed import RelayedDeployment

SHORT_SECONDS: Final = (0.1, 3.0)
LONG_SECONDS: Final = 17.0
"""Longer than an owner of an upload believes without looking that it is one."""


class Trouble:
    """Trouble for the workers of a deployment. ``counts`` says how often, by kind."""

    def __init__(
        self, deployment: RelayedDeployment, seed: int, *, goes_on: Callable[[int], bool]
    ) -> None:
        """``goes_on`` is asked before each moment, with how many there were."""
        self.deployment = deployment
        self.seed = seed
        self.goes_on = goes_on
        self.counts: Counter[str] = Counter()

    async def make(self, node: str) -> None:
        """Trouble for one worker."""
        rng = random.Random(f"{self.seed} {node}")  # noqa: S311  (to be repeatable)
        moments = itertools.count()
        while self.goes_on(next(moments)):
            await asyncio.sleep(rng.uniform(*SHORT_SECONDS))
            self.deployment.revive()
            seconds = LONG_SECONDS if rng.random() < 0.2 else rng.uniform(*SHORT_SECONDS)
            kind = rng.choice(("paused", "cut off", "heard but deaf", "killed"))
            self.counts[kind] += 1
            match kind:
                case "paused":
                    self.deployment.pause(node)
                    await asyncio.sleep(seconds)
                    self.deployment.wake(node)
                case "killed":
                    self.deployment.kill(node)
                    self.deployment.spawn(node)
                case _:
                    self.deployment.cut_off(node, is_heard=kind == "heard but deaf")
                    await asyncio.sleep(seconds)
                    self.deployment.connect_again(node)
