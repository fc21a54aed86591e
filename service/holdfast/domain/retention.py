"""The snapshots of an app that a policy keeps: those of ``restic forget``, and why.

Only snapshots that are ``ok`` count. Kept besides are what somebody holds, the newest, and what is
dated later than the present: a clock that was wrong made it, and it must not stand for others.

Why: docs/decisions.md, "What a policy counts".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from holdfast.domain.names import check_labels
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MAX_CLOCK_OFF: Final = timedelta(seconds=60)
"""Allowed difference of worker and store clocks."""

ZONE_OF_ALL: Final = "UTC"
SPAN_PATTERN: Final = (
    r"(?=.)(?:([0-9]{1,4})y)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})d)?(?:([0-9]{1,7})h)?"
)

_SPAN: Final = re.compile(SPAN_PATTERN, re.ASCII)
_MONTHS: Final = 12


class Retention(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The snapshots of an app that are kept. Where nothing is stated, all of them.

    The last so many, and the newest of each of the last so many hours, days, weeks (of ISO 8601),
    months and years that have one, by the clocks of ``time_zone``. Where there are fewer of these
    the oldest snapshot is kept, too. ``within`` is a span before the newest, such as ``1y2m3d4h``,
    of years, months, days and hours. Each of ``labels`` is a set, one of which has to be there.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: str = ""
    labels: tuple[Mapping[str, str], ...] = ()
    time_zone: str = ZONE_OF_ALL

    @property
    def keeps_all(self) -> bool:
        """Whether it states nothing."""
        return self == Retention(time_zone=self.time_zone)

    def check(self) -> None:
        """Raises InvalidError. Whether there is such a time zone is not looked at."""
        if min(self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly) < 0:
            raise InvalidError("a policy keeps 0 snapshots or more")
        if self.within:
            CalendarSpan.parse(self.within)
        for labels in self.labels:
            check_labels(labels)
            if not labels:
                raise InvalidError("a set of labels to keep by has one label at least")


@dataclass(frozen=True, slots=True)
class CalendarSpan:
    """A time by the calendar, and hours."""

    years: int
    months: int
    days: int
    hours: int

    @classmethod
    def parse(cls, text: str) -> CalendarSpan:
        """The span that ``text`` spells. Raises InvalidError."""
        found = _SPAN.fullmatch(text)
        if found is None:
            raise InvalidError("a span is years, months, days and hours, such as 1y2m3d4h")
        return cls(*(int(digits or 0) for digits in found.groups()))

    def before(self, at: datetime, zone: tzinfo) -> datetime | None:
        """The time that lies this span before ``at``, in UTC; None: before all times.

        As in Go and so in restic a day that a month lacks is one of the next month, and a time of
        day that there was twice, or not at all, is read by the offset that UTC had at that time.
        """
        local = at.astimezone(zone)
        months = (local.year - self.years) * _MONTHS + local.month - 1 - self.months
        try:
            first = local.replace(
                year=months // _MONTHS, month=months % _MONTHS + 1, day=1, tzinfo=None, fold=0
            )
            there = first + timedelta(days=local.day - 1 - self.days)
            return _instant(there, zone) - timedelta(hours=self.hours)
        except (ValueError, OverflowError):
            return None


def _instant(local: datetime, zone: tzinfo) -> datetime:
    utc = local.replace(tzinfo=UTC)
    offset = _offset(utc, zone)
    return utc - _offset(utc - offset, zone)


def _offset(at: datetime, zone: tzinfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated:
    """A snapshot as a policy sees it: ``at`` is when it was made. Ids rise as they are made."""

    id: str
    at: datetime
    labels: Mapping[str, str]
    state: str = "ok"
    held: bool = False


@dataclass(frozen=True, slots=True)
class Fate:
    """The fate of a snapshot, and the reasons.

    If not kept it is superfluous for as long as the snapshots ``instead`` (by their ids) are ok.
    """

    snapshot: Dated
    kept: bool
    reasons: tuple[str, ...]
    instead: frozenset[str] = frozenset()


def decide(
    snapshots: Sequence[Dated],
    policy: Retention,
    *,
    zone: tzinfo,
    now: datetime,
    labels: Mapping[str, str] | None = None,
) -> list[Fate]:
    """The fates of an app's ``snapshots``, the newest first; ``zone`` is the policy's.

    All of them are given, or the newest could be another; with ``labels`` only those that have
    them are looked at, and the others stay. ``now`` is the store's time.
    """
    ordered = sorted(snapshots, key=lambda one: (one.at, one.id), reverse=True)
    newest = max((one.id for one in snapshots if one.state == "ok"), default="")
    counted = [
        one
        for one in ordered
        if one.state == "ok"
        and one.at <= now + MAX_CLOCK_OFF
        and (labels or {}).items() <= one.labels.items()
    ]
    judged = {fate.snapshot.id: fate for fate in _judged(counted, policy, zone, now)}
    return [_spared(one, judged.get(one.id), newest, now) for one in ordered]


def _spared(one: Dated, fate: Fate | None, newest: str, now: datetime) -> Fate:
    """The fate of ``one``, as the rules have it, after all that goes before rules."""
    if one.state != "ok":
        return Fate(one, kept=True, reasons=(f"it is {one.state}",))
    if fate is None:
        ahead = one.at > now + MAX_CLOCK_OFF
        reason = "its time is yet to come" if ahead else "it has other labels"
        return Fate(one, kept=True, reasons=(reason,))
    if fate.kept:
        return fate
    if one.held:
        return Fate(one, kept=True, reasons=("held",))
    if one.id == newest:
        return Fate(one, kept=True, reasons=("newest",))
    return Fate(one, kept=False, reasons=fate.reasons, instead=fate.instead | {newest})


def _judged(
    counted: Sequence[Dated], policy: Retention, zone: tzinfo, now: datetime
) -> Iterator[Fate]:
    """The reasons that the rules give, the newest first."""
    if policy.keeps_all:
        yield from (Fate(one, kept=True, reasons=("the policy keeps all",)) for one in counted)
        return
    rules = [*_rules(policy, counted, zone, now)]
    for one in counted:
        local = one.at.astimezone(zone)
        found = [rule(one, local) for rule in rules]
        reasons = tuple(told.reason for told in found if told.keeps)
        if reasons:
            yield Fate(one, kept=True, reasons=reasons)
            continue
        yield Fate(
            one,
            kept=False,
            reasons=tuple(told.reason for told in found),
            instead=frozenset().union(*(told.instead for told in found)),
        )


class _Verdict(NamedTuple):
    """Whether a rule keeps a snapshot, and why; ``instead``: without these it might."""

    keeps: bool
    reason: str
    instead: Iterable[str] = ()


type _Rule = Callable[[Dated, datetime], _Verdict]
"""One of those that a policy is made of, asked of each snapshot, the newest first.

It is told the snapshot's time by the clocks of the zone, too.
"""


def _labelled(labels: Mapping[str, str]) -> _Rule:
    """Keep what has the labels."""
    text = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))

    def rule(one: Dated, _: datetime) -> _Verdict:
        has = labels.items() <= one.labels.items()
        return _Verdict(has, f"label {text}" if has else f"no label {text}")

    return rule


def _within(span: str, counted: Sequence[Dated], zone: tzinfo, now: datetime) -> _Rule:
    """Keep what is younger than a span, before the newest that is not later than now."""
    newest = next((one for one in counted if one.at <= now), None)
    start = None if newest is None else CalendarSpan.parse(span).before(newest.at, zone)
    instead = [newest.id] if newest is not None else []

    def rule(one: Dated, _: datetime) -> _Verdict:
        is_younger = start is None or one.at > start
        return _Verdict(is_younger, f"{'within' if is_younger else 'older than'} {span}", instead)

    return rule


def _counting(unit: str, count: int, counted: Sequence[Dated]) -> _Rule:
    """Keep the newest of each of the last ``count`` periods that have one; else the oldest, too."""
    name, period_of = _PERIODS[unit]
    kept: dict[str, object] = {}

    def rule(one: Dated, local: datetime) -> _Verdict:
        if len(kept) == count:
            return _Verdict(keeps=False, reason=f"{count} newer {unit}s", instead=[*kept])
        newest = next(reversed(kept), None)
        period = period_of(local)
        is_new = newest is None or period != kept[newest]
        if not is_new and one is not counted[-1]:
            return _Verdict(keeps=False, reason=f"the {unit} has {newest}", instead=[*kept][-1:])
        kept[one.id] = period
        return _Verdict(keeps=True, reason=name if is_new else f"oldest {name}")

    return rule


_PERIODS: Final[Mapping[str, tuple[str, Callable[[datetime], object]]]] = {
    "snapshot": ("last", lambda _at: object()),
    "hour": ("hourly", lambda at: (at.date(), at.hour)),
    "day": ("daily", lambda at: at.date()),
    "week": ("weekly", lambda at: at.isocalendar()[:2]),
    "month": ("monthly", lambda at: (at.year, at.month)),
    "year": ("yearly", lambda at: at.year),
}
"""The name of a rule, and the period that a time by its zone's clocks is in."""


def _rules(
    policy: Retention, counted: Sequence[Dated], zone: tzinfo, now: datetime
) -> Iterator[_Rule]:
    yield from map(_labelled, policy.labels)
    if policy.within:
        yield _within(policy.within, counted, zone, now)
    for unit, (name, _) in _PERIODS.items():
        if count := getattr(policy, name):
            yield _counting(unit, count, counted)
