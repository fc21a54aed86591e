"""The command line: which commands there are, and where each of them is."""

from __future__ import annotations

from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Final

from cyclopts import App, CycloptsError

from holdfast.cli import own_version
from holdfast.cli.base import exit_codes
from holdfast.cli.base.arguments import note_literal
from holdfast.cli.base.ending import run_in_loop

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: Final = (
    ("blob", "holdfast.cli.blob:app", "Store, read, list and check blobs."),
    ("name", "holdfast.cli.name:app", "Store blobs under names, read, list and copy them."),
    ("snapshot", "holdfast.cli.snapshot:app", "Archive directories, restore and read them."),
    ("state", "holdfast.cli.state:app", "Append to logs of states, save, load and follow them."),
    ("import", "holdfast.cli.import_:app", "Bring in what older systems left on disk."),
    ("token", "holdfast.cli.token:app", "Make and end tokens for gateways."),
    ("link-key", "holdfast.cli.link:keys_app", "Make and end the keys that links need."),
    ("watch", "holdfast.cli.watch:watch", "Changes as they happen, in lines of JSON."),
    ("status", "holdfast.cli.care.status:status", "The state of the workers and the store."),
    ("doctor", "holdfast.cli.care.doctor:doctor", "Problems, each with its remedy."),
    ("usage", "holdfast.cli.care.usage:usage", "Bytes stored by app, prefix or label."),
    ("scrub", "holdfast.cli.care.scrub:scrub", "Progress of the scrub, and damage."),
    ("worker", "holdfast.cli.serving.worker:worker", "Serve requests until SIGTERM."),
    (
        "gateway",
        "holdfast.cli.serving.gateway:gateway",
        "HTTP in front of the pool, until SIGTERM.",
    ),
    ("admin", "holdfast.cli.admin:app", "Set the store up, and change how it is kept."),
    ("up", "holdfast.cli.serving.up:up", "A nats-server and workers, on this machine."),
    ("config", "holdfast.cli.config:config", "Every setting, and where it comes from."),
    ("bench", "holdfast.cli.bench:app", "Measure this installation."),
    (
        "--install-completion",
        "holdfast.cli.completion:install",
        "Install completion for the shell in use.",
    ),
)


def build_app() -> App:
    """The command line. Commands are imported when they are called."""
    app = App(
        name="holdfast",
        help="Keeps blobs and snapshots for services that speak NATS.",
        version=own_version,
        help_format="plaintext",
        exit_on_error=False,
    )
    for name, target, summary in COMMANDS:
        app.command(target, name=name, help=summary)
    return app


def run(words: Sequence[str]) -> int:
    """Run the command that ``words`` are; the exit status. Raises what the command raises."""
    note_literal(words)
    if words and not words[0].startswith("-"):
        from holdfast.cli.base.logs import configure_for  # noqa: PLC0415 - no help needs it

        configure_for(words[0])
    try:
        command, bound, _ = build_app().parse_args(words)
    except CycloptsError:
        return exit_codes.USAGE  # the message has been written
    call = partial(command, *bound.args, **bound.kwargs)
    status = run_in_loop(call) if iscoroutinefunction(command) else call()
    return status if isinstance(status, int) else exit_codes.OK
