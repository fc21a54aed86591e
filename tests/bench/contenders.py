"""Which clients can be measured on this machine, and the command that starts each one's process."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from holdfast.cli.bench.blobs import NATS_PY
from holdfast.cli.bench.report import HOLDFAST
from holdfast.errors import InvalidError

NATSRPY: Final = "natsrpy"
NATSRPY_128K: Final = "natsrpy-128k"
NATSIO: Final = "natsio"
NATS_JS: Final = "nats.js"

_HERE: Final = Path(__file__).parent
_PYTHON_PEERS: Final = {
    NATS_PY: "nats",
    NATSRPY: "natsrpy",
    NATSRPY_128K: "natsrpy",
    NATSIO: "natsio",
}
_NODE_PACKAGES: Final = ("transport-node", "obj")


@dataclass(frozen=True, slots=True)
class Contender:
    """A client to measure. ``command`` lacks the server's URL, its last argument."""

    name: str
    command: tuple[str, ...]


OURS: Final = Contender(HOLDFAST, (sys.executable, "-m", "tests.bench.through_workers"))


def find_contenders(node_modules: Path | None) -> list[Contender]:
    """Holdfast, and every other client that is installed. nats.js only from ``node_modules``.

    Raises InvalidError when ``node_modules`` is given and does not have what nats.js needs.
    """
    found = [OURS]
    for name, module in _PYTHON_PEERS.items():
        if find_spec(module) is not None:
            # -P: this directory holds modules, none of which is for the peer to find.
            found.append(Contender(name, (sys.executable, "-P", str(_HERE / "peers.py"), name)))
    if node_modules is not None:
        found.append(_nats_js(node_modules))
    return found


def _nats_js(node_modules: Path) -> Contender:
    node = shutil.which("node")
    if node is None:
        raise InvalidError("nats.js needs node, and there is none on PATH")
    for package in _NODE_PACKAGES:
        if not (node_modules / "@nats-io" / package).is_dir():
            raise InvalidError(f"{node_modules} has no @nats-io/{package}: npm install it there")
    return Contender(NATS_JS, (node, str(_HERE / "nats_js.mjs"), str(node_modules.resolve())))
