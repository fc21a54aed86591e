"""Runs a command, or two joined by a pipe, and says what that took: ``python -I -S FILE``.

One JSON object on stdin, one on stdout. A small process of its own, so that what is measured is
the command's: the memory of the process that starts a command counts as the command's peak.
"""

import json
import os
import resource
import subprocess
import sys
import time


def main() -> None:
    """Run ``{"commands", "cwd", "stdout", "env", "seconds"}``."""
    given = json.load(sys.stdin)
    error = open(given["stderr"], "ab")  # noqa: SIM115
    target = open(given["stdout"] or os.devnull, "wb")  # noqa: SIM115
    processes: list[subprocess.Popen[bytes]] = []
    start = time.perf_counter()
    for number, command in enumerate(given["commands"]):
        last = number == len(given["commands"]) - 1
        processes.append(
            subprocess.Popen(
                command,
                stdin=processes[-1].stdout if processes else subprocess.DEVNULL,
                stdout=target if last else subprocess.PIPE,
                stderr=error,
                cwd=given["cwd"],
                env=given["env"],
            )
        )
    for process in processes:
        if process.stdout:
            process.stdout.close()  # so that the first ends when the second does
    deadline = start + given["seconds"]
    timed_out = False
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.perf_counter()))
        except subprocess.TimeoutExpired:
            timed_out = True
            process.kill()
            process.wait()
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    json.dump(
        {
            "seconds": seconds,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_bytes": used.ru_maxrss * 1024,
            "status": [process.returncode for process in processes],
            "timed_out": timed_out,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
