"""Whatever happens between any two calls to the stores, names are as they should be."""

from __future__ import annotations

import os
from collections import Counter
from typing import Final

import pytest
from tests.name_histories import violations
from tests.repository.names.simulation import Simulation, run

_RUNS: Final = int(os.environ.get("RUNS", "30"))
_SEED: Final = int(os.environ.get("SEED", "1"))


@pytest.mark.parametrize(
    ("clients", "requests"), [(2, 4), (4, 6), pytest.param(8, 6, marks=pytest.mark.long)]
)
def test_what_is_answered_is_linearizable_readable_and_ends(clients: int, requests: int) -> None:
    codes: Counter[str] = Counter()
    for seed in range(_SEED, _SEED + _RUNS):
        simulation = Simulation(seed, clients=clients, requests=requests)

        run(simulation)

        codes += simulation.codes
        assert violations(simulation.calls) == [], f"seed {seed}"
        assert simulation.pending == [], f"seed {seed}"
    print(dict(codes))  # noqa: T201
