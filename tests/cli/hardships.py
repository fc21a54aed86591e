"""Runs commands in a bare process: with standard streams that are closed, or take nothing more.

Called by ``test_hardships`` as a program, for a test process needs its own streams. Each line that
it reads has a command's arguments and a hardship; it writes what that ended with and what it said.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from importlib import import_module
from typing import IO

from holdfast.cli import main

# What the commands load when they are used is loaded once, for all.
for loaded in ("bootstrap.admin", "bootstrap.worker", "client.client", "cli.bench.snapshots"):
    import_module(f"holdfast.{loaded}")

FULL = "/dev/full"


def run(arguments: list[str], hardship: str) -> tuple[int, str]:
    """The exit status of ``main``, as an interpreter would end with it, and standard error."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            os._exit(in_child(arguments, hardship, said))
        _, ended = os.waitpid(child, 0)
        said.seek(0)
        return os.waitstatus_to_exitcode(ended), said.read().decode(errors="replace")


def in_child(arguments: list[str], hardship: str, said: IO[bytes]) -> int:
    kept = os.dup(said.fileno())
    os.dup2(said.fileno(), 2)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    if hardship == "full":
        os.dup2(os.open(FULL, os.O_WRONLY), 1)
    for number, word in enumerate(("stdin", "stdout", "stderr")):
        if word in hardship.split():
            os.close(number)
            setattr(sys, word, None)  # as the interpreter does
    try:
        result = main(arguments)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # as the interpreter does
    except BaseException:  # noqa: BLE001 - it is what is looked for
        os.write(kept, traceback.format_exc().encode())
        return 1
    return result


if __name__ == "__main__":
    # Not by the standard streams, which the commands find as an interpreter leaves them.
    with os.fdopen(os.dup(0)) as asked, os.fdopen(os.dup(1), "w", buffering=1) as told:
        for line in asked:
            told.write(json.dumps(run(*json.loads(line))) + "\n")
