"""The commands of ``holdfast snapshot`` about how long snapshots are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from holdfast.cli.base import exit_codes
from holdfast.cli.base.arguments import Flag, Json, Many, OnlyLabel, parse_labels
from holdfast.cli.base.connection import connect
from holdfast.cli.base.output import print_json, print_result, say
from holdfast.cli.base.settings import ClientFlags
from holdfast.cli.base.snapshot_arguments import Key, resolve_key
from holdfast.domain.names import SnapshotKey, check_app
from holdfast.errors import InvalidError
from holdfast.protocol.retention import KeepSnapshots, PrunedSnapshot, PruneReport, SnapshotPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from holdfast.client import Client


def _keeps(what: str) -> Parameter:
    return Parameter(help=f"Keep {what}.")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class KeepFlags:
    """The rules."""

    keep_last: Annotated[int | None, _keeps("the last so many")] = None
    keep_hourly: Annotated[int | None, _keeps("the newest of each of so many hours")] = None
    keep_daily: Annotated[int | None, _keeps("the newest of each of so many days")] = None
    keep_weekly: Annotated[int | None, _keeps("the newest of each of so many weeks")] = None
    keep_monthly: Annotated[int | None, _keeps("the newest of each of so many months")] = None
    keep_yearly: Annotated[int | None, _keeps("the newest of each of so many years")] = None
    keep_within: Annotated[
        str | None,
        _keeps("those younger than this, from the newest on: 1y2m3d4h, m being months"),
    ] = None
    keep_label: Annotated[
        tuple[str, ...],
        Many,
        Parameter(
            help="Keep those with label KEY=VALUE, or all of K=V,K=V; may be repeated.",
        ),
    ] = field(default=())
    time_zone: Annotated[
        str | None, Parameter(help="Time zone of hours, days …: UTC, or such as Europe/Berlin.")
    ] = None

    def read(self) -> KeepSnapshots | None:
        """None where nothing is stated. Raises InvalidError."""
        counts = {
            name: count
            for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly")
            if (count := getattr(self, f"keep_{name}")) is not None
        }
        if any(count < 0 for count in counts.values()):
            raise InvalidError("a number of snapshots to keep is 0 or more")
        labels = [parse_labels(text.split(",")) for text in self.keep_label]
        if not counts and self.keep_within is None and not labels:
            if self.time_zone is not None:
                raise InvalidError("--time-zone goes with a rule, such as --keep-daily 7")
            return None
        return KeepSnapshots(
            **counts,
            within=self.keep_within or "",
            labels=labels,
            time_zone=self.time_zone or "UTC",
        )


async def prune(
    app: Annotated[str | None, Parameter(help="The app.", show_default=False)] = None,
    /,
    *,
    all: Annotated[bool, Flag, Parameter(help="All apps.")] = False,  # noqa: A002 - the flag's name
    label: OnlyLabel = (),
    keep: KeepFlags | None = None,
    dry_run: Annotated[bool, Flag, Parameter(help="Only print what would be done.")] = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> int:
    """Delete the snapshots of an app that are not to be kept: by these options, or by its policy.

    Prints each snapshot, whether it is kept, and why. The newest, and what is held, stay. Exits
    with 6 if it was stopped before all was done.
    """
    if (app is None) != all:
        raise InvalidError("name an app, or --all")
    rules = (keep or KeepFlags()).read()
    labels = parse_labels(label)
    kept = superfluous = removed = 0
    stopped: list[str] = []
    async with await connect(flags) as connection:
        wanted = check_app(app) if app is not None else None
        async for report in _reports(connection, wanted, rules, labels, dry_run=dry_run):
            kept += report.kept
            superfluous += report.superfluous
            removed += report.removed
            stopped += report.stopped
            _print_report(report, json=json)
    if json:
        print_json({"kept": kept, "superfluous": superfluous, "removed": removed})
    else:
        say(f"{kept} kept, {superfluous} superfluous, {removed} removed")
    for reason in stopped:
        say(reason)
    return exit_codes.UNAVAILABLE if stopped else exit_codes.OK


async def _reports(
    connection: Client,
    app: str | None,
    keep: KeepSnapshots | None,
    labels: dict[str, str],
    *,
    dry_run: bool,
) -> AsyncIterator[PruneReport]:
    retention = connection.retention
    if app is not None:
        yield await retention.prune(app, keep, labels=labels, dry_run=dry_run)
        return
    async for report in retention.prune_all(keep, labels=labels, dry_run=dry_run):
        yield report


def _print_report(report: PruneReport, *, json: bool) -> None:
    for row in report.snapshots:
        reasons = ", ".join(row.reasons)
        print_result(row, row.key, row.created_at, _verdict(row), reasons, json=json)
    for key in report.damaged:
        say(f"{key}: its record is damaged, and it stays")
    more = report.kept + report.superfluous - len(report.snapshots)
    if more:
        say(f"and {more} more")


def _verdict(row: PrunedSnapshot) -> str:
    if row.kept:
        return "kept"
    return "removed" if row.removed else "superfluous"


async def hold(
    key: Key,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why.", show_default=False)] = "",
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Keep a snapshot from all policies, until it is released. It can still be deleted."""
    async with await connect(flags) as connection:
        record = await connection.retention.hold(await resolve_key(connection, key), reason)
    print_result(record, record.key, "held", json=json)


async def release(
    key: Annotated[str, Parameter(help="Full key of the snapshot.")],
    /,
    *,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """End the hold of a snapshot: policies decide about it again."""
    async with await connect(flags) as connection:
        record = await connection.retention.release(str(SnapshotKey.parse(key)))
    print_result(record, record.key, "released", json=json)


async def policy(
    app: Annotated[
        str | None, Parameter(help="The app; without one, all that have none of their own.")
    ] = None,
    /,
    *,
    keep: KeepFlags | None = None,
    keep_all: Annotated[bool, Flag, Parameter(help="Keep everything.")] = False,
    none: Annotated[bool, Flag, Parameter(help="Remove the app's own policy.")] = False,
    if_revision: Annotated[
        int | None, Parameter(help="Change it only if it has this revision.")
    ] = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print the policy that workers apply to an app's snapshots, or change it.

    The revision goes to standard error.
    """
    rules = (keep or KeepFlags()).read()
    if (rules is not None) + keep_all + none > 1:
        raise InvalidError("give rules, --keep-all or --none")
    is_changed = rules is not None or keep_all or none
    if if_revision is not None and (if_revision < 0 or not is_changed):
        raise InvalidError("--if-revision is 0 or more, and goes with a change")
    wanted = check_app(app) if app is not None else None
    async with await connect(flags) as connection:
        if is_changed:
            found = await connection.retention.set_policy(
                KeepSnapshots() if keep_all else rules, app=wanted, if_revision=if_revision
            )
        else:
            found = await connection.retention.policy(wanted)
    print_result(found, _policy_line(found), json=json)
    say(f"revision {found.revision}")


def _policy_line(found: SnapshotPolicy) -> str:
    keep = found.keep
    if keep is None:
        return "no policy: nothing is removed"
    rules = [
        f"keep-{name}={value}"
        for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly", "within")
        if (value := getattr(keep, name))
    ]
    rules += [
        "keep-label=" + ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        for labels in keep.labels
    ]
    rules = [*rules, f"time-zone={keep.time_zone}"] if rules else ["keep-all"]
    return " ".join([*rules, "(default)"] if found.default and found.app else rules)
