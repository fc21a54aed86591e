"""``holdfast admin``: what is done once, by hand. Workers never create a store."""

from __future__ import annotations

from cyclopts import App

from holdfast.bootstrap import init_store
from holdfast.cli.output import print_json, print_line
from holdfast.cli.settings import StoreFlags

app = App(name="admin", help_format="plaintext")


@app.command
async def init(*, json: bool = False, flags: StoreFlags | None = None) -> None:
    """Create the store's buckets and records. May be repeated: what is there stays as it is.

    Replicas, storage and size limit stand in the store's URL: nats://blobs?replicas=3

    Parameters
    ----------
    json
        A list of what was created or found.
    """
    config = (flags or StoreFlags()).load().config
    lines = await init_store(config)
    if json:
        print_json(lines)
        return
    for line in lines:
        print_line(line)
