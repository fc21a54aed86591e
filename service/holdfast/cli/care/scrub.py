"""``holdfast scrub``: the progress of the scrub, and the damage it found."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from holdfast.cli.base import exit_codes
from holdfast.cli.base.arguments import Json
from holdfast.cli.base.connection import connect
from holdfast.cli.base.output import human_bytes, print_json, print_line, say, status_line
from holdfast.cli.base.settings import ClientFlags

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.protocol.care import ScrubLap, ScrubPlace, ScrubStatus

_LOOK_SECONDS: Final = 1.0


async def scrub(
    *,
    start: bool = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> int:
    """Print how far workers have read everything back, at each nats-server, and what is damaged.

    Workers do so by themselves, a lap in `scrub_days`. Exits with 5 if the last lap, or the one
    that is under way, has met damage that is not healed, or records that cannot be read.

    Parameters
    ----------
    start
        Begin another lap at each place, and wait for the end of that of the worker that answers.
    """
    async with await connect(flags) as connection:
        found = await (_lap(connection) if start else connection.care.scrub())
    if json:
        print_json(found)
    else:
        for place in found.places:
            _print_place(place)
        if not found.places:
            say("nothing was read back yet")
    return exit_codes.CORRUPT if any(map(is_damaged, found.places)) else exit_codes.OK


async def _lap(connection: Client) -> ScrubStatus:
    """Begin a lap, and wait until it has ended; how it went."""
    found = await connection.care.scrub(start=True)
    here = found.here
    with status_line("scrub") as show:
        while any(
            one.place == here and (one.wanted or one.lap is not None) for one in found.places
        ):
            for one in found.places:
                if one.place == here and one.lap is not None:
                    show(f"scrub: {one.lap.checked} checked, {human_bytes(one.lap.bytes)}")
            await asyncio.sleep(_LOOK_SECONDS)
            found = await connection.care.scrub()
    return found


def is_damaged(place: ScrubPlace) -> bool:
    """Whether something there was met that is damaged and not healed."""
    laps = [lap for lap in (place.lap, place.last) if lap is not None]
    return any(lap.damaged > lap.healed or lap.unreadable for lap in laps)


def _print_place(place: ScrubPlace) -> None:
    if place.lap is not None:
        _print_lap(place.place, "under way since", place.lap.began_at, place.lap)
    if place.last is not None:
        _print_lap(place.place, "ended at", place.last.ended_at or "", place.last)
    if place.lap is None and place.last is None:
        print_line(place.place, "nothing was read back yet")


def _print_lap(place: str, when: str, at: str, lap: ScrubLap) -> None:
    print_line(
        place,
        f"{when} {at}",
        f"{lap.checked} checked",
        human_bytes(lap.bytes),
        f"{lap.damaged} damaged, {lap.healed} healed, {lap.unreadable} unreadable records",
    )
    for one in lap.found:
        print_line(place, one.space, one.name, one.detail, "healed" if one.healed else "damaged")
