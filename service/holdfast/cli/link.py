"""``link`` of blobs, names and snapshots, and ``holdfast link-key``: the keys that links need.

A link is printed alone on its line, for scripts; when it ends is said on standard error.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from msgspec.structs import replace

from holdfast.cli.base.arguments import Flag, Json, parse_long_duration
from holdfast.cli.base.connection import connect
from holdfast.cli.base.kept_file import change_file, read_file
from holdfast.cli.base.output import print_json, print_line, print_result, say
from holdfast.cli.base.settings import ClientFlags
from holdfast.cli.base.snapshot_arguments import Key, resolve_key
from holdfast.domain.link_keys import LinkKey, read_keys, write_keys
from holdfast.errors import ConflictError, NotFoundError
from holdfast.sources import utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.protocol.links import LinkMade

keys_app = App(name="link-key", help_format="plaintext")

_SECRET_BYTES = 32
_VARIABLE = "HOLDFAST_LINK_KEYS"

Expires = Annotated[str, Parameter(help="Time until the link ends: 90m, 12h, 1d; at most 7d.")]
Once = Annotated[bool, Flag, Parameter(help="For one download.")]
ForPut = Annotated[bool, Flag, Parameter(help="For one upload, by PUT.")]
KeysFile = Annotated[str | None, Parameter(help=f"The file of keys; by default ${_VARIABLE}.")]


async def link_blob(
    digest: str,
    /,
    *,
    expires: Expires = "1d",
    once: Once = False,
    put: ForPut = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print a link to a blob, which its holder may follow."""
    async with await connect(flags) as connection:
        made = await connection.link(
            digest.strip(),
            _seconds(expires),
            method="PUT" if put else "GET",
            single_use=once,
        )
    _print(made, json=json)


async def link_name(
    name: str,
    /,
    *,
    version: Annotated[int | None, Parameter(help="A version that it had.")] = None,
    latest: Annotated[
        bool, Flag, Parameter(help="Follow the name to its blob when the link is used.")
    ] = False,
    expires: Expires = "1d",
    once: Once = False,
    put: ForPut = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print a link to the blob that a name has now, which its holder may follow."""
    async with await connect(flags) as connection:
        made = await connection.names.link(
            name,
            _seconds(expires),
            version=version,
            latest=latest,
            method="PUT" if put else "GET",
            single_use=once,
        )
    _print(made, json=json)


async def link_snapshot(
    key: Key,
    /,
    *,
    path: Annotated[str | None, Parameter(help="One file of it, instead of all.")] = None,
    expires: Expires = "1d",
    once: Once = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print a link to a snapshot as a .tar.zst, or to a file of it, which anybody may follow."""
    async with await connect(flags) as connection:
        full = await resolve_key(connection, key)
        made = await connection.snapshots.link(full, _seconds(expires), path=path, single_use=once)
    _print(made, json=json)


def _seconds(expires: str) -> int:
    """Raises InvalidError."""
    return parse_long_duration(expires) // timedelta(seconds=1)


def _print(made: LinkMade, *, json: bool) -> None:
    if json:
        print_json(made)
    else:
        print_line(made.url)
        say(f"until {made.expires_at}")


# --- keys ---


def new_key(
    id: str | None = None,  # noqa: A002 - the word
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> LinkKey:
    """A key that holds from ``since`` on, or from now; its id is the time where none is said."""
    now = utc_now().replace(microsecond=0)
    return LinkKey(
        id=id or f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        secret=secrets.token_urlsafe(_SECRET_BYTES),
        since=since or now,
        until=until,
    )


@keys_app.command
def create(
    id: Annotated[str | None, Parameter(help="Id of the key; by default the time.")] = None,  # noqa: A002 - the word
    /,
    *,
    file: KeysFile = None,
    since: Annotated[str, Parameter(help="Time until it is used: 5m, say.")] = "0s",
    lasts: Annotated[str | None, Parameter(help="Time until it ends: 90d, say.")] = None,
) -> None:
    """Add a key to the file, which is made if there is none, and print its id.

    From then on links are signed with it; those of the keys before it stay valid. All workers and
    gateways need the same file: with more than one machine let it begin when all have it (--since).
    """
    start = utc_now().replace(microsecond=0) + parse_long_duration(since)
    until = None if lasts is None else start + parse_long_duration(lasts)
    key = new_key(id, since=start, until=until)

    def added(keys: Sequence[LinkKey]) -> Sequence[LinkKey]:
        if any(one.id == key.id for one in keys):
            raise ConflictError(f"there is a key {key.id} already")
        return (*keys, key)

    change_file(file, _VARIABLE, read_keys, write_keys, added, is_new=True)
    print_line(key.id)


@keys_app.command
def ls(*, file: KeysFile = None, json: Json = False) -> None:
    """List the keys, without their secrets: id, since when, until when."""
    for key in read_file(file, _VARIABLE, read_keys):
        since = key.since.isoformat()
        until = None if key.until is None else key.until.isoformat()
        told = {"id": key.id, "since": since, "until": until}
        print_result(told, key.id, since, until or "-", json=json)


@keys_app.command
def end(
    id: Annotated[str, Parameter(help="Id of the key.")],  # noqa: A002 - the word
    /,
    *,
    file: KeysFile = None,
    after: Annotated[str, Parameter(help="Time until it ends: 1d, say.")] = "0s",
) -> None:
    """End a key: no link that it signed is valid from then on."""
    now = utc_now().replace(microsecond=0)
    until = now + parse_long_duration(after)

    def ended(keys: Sequence[LinkKey]) -> Sequence[LinkKey]:
        if all(key.id != id for key in keys):
            raise NotFoundError(f"there is no key {id}")
        return [replace(key, until=until) if key.id == id else key for key in keys]

    change_file(file, _VARIABLE, read_keys, write_keys, ended)
    print_line(id, "ends", until.isoformat())
