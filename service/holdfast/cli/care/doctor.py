"""``holdfast doctor``: what is wrong with a deployment, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.cli.base import exit_codes
from holdfast.cli.base.arguments import Json
from holdfast.cli.base.connection import connect
from holdfast.cli.base.output import print_json, print_line, say, status_line
from holdfast.cli.base.settings import ClientFlags

if TYPE_CHECKING:
    from holdfast.protocol.care import DoctorReport


async def doctor(
    *,
    check: bool = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> int:
    """Print what is wrong with the store, the worst first, each with what to do about it.

    A worker reads the records of everything there is, so it takes a while where there is much.

    Parameters
    ----------
    check
        Exit with 1 if there is an error.
    """
    async with await connect(flags) as connection:
        with status_line("looking"):
            report = await connection.care.doctor()
    if json:
        print_json(report)
    else:
        _print(report)
    failed = any(one.severity == "error" for one in report.findings)
    return exit_codes.FAILURE if check and failed else exit_codes.OK


def _print(report: DoctorReport) -> None:
    for one in report.findings:
        print_line(f"{one.severity}: {one.text}")
        print_line(f"  {one.advice}")
    if not report.findings:
        say("nothing is wrong")
