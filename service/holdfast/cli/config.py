"""``holdfast config``: settings of a worker started the same way, and their sources."""

from __future__ import annotations

import json as json_module  # a parameter of the command has the name

import msgspec

from holdfast.cli.base.output import print_json, print_line
from holdfast.cli.base.settings import WorkerFlags


def _as_json(value: object) -> str:
    """``value`` as JSON; a path in it need not be UTF-8."""
    return json_module.dumps(msgspec.to_builtins(value), ensure_ascii=False, separators=(",", ":"))


def config(*, json: bool = False, flags: WorkerFlags | None = None) -> None:
    """Print every setting with its source. Secrets are masked.

    Parameters
    ----------
    json
        Print one object: key to value and source.
    """
    loaded = (flags or WorkerFlags()).load()
    if json:
        print_json({k: {"value": value, "source": source} for k, value, source in loaded.values()})
        return
    rows = [(key, _as_json(value), source) for key, value, source in loaded.values()]
    key_width = max(len(key) for key, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows)
    for key, value, source in rows:
        print_line(f"{key:{key_width}}", f"{value:{value_width}}", source)
