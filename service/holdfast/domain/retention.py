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
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from holdfast.domain.names import check_labels
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
            msg = "a policy keeps 0 snapshots or more"
            raise InvalidError(msg)
        if self.within:
            CalendarSpan.parse(self.within)
        for labels in self.labels:
            check_labels(labels)
            if not labels:
                msg = "a set of labels to keep by has one label at least"
                raise InvalidError(msg)


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
            msg = "a span is years, months, days and hours, such as 1y2m3d4h"
            raise InvalidError(msg)
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
    for number, one in enumerate(counted, start=1):
        local = one.at.astimezone(zone)
        is_oldest = number == len(counted)
        found = [rule.keeps(one, local, is_oldest=is_oldest) for rule in rules]
        reasons = tuple(reason for reason in found if reason is not None)
        if reasons:
            yield Fate(one, kept=True, reasons=reasons)
            continue
        yield Fate(
            one,
            kept=False,
            reasons=tuple(rule.refusal for rule in rules),
            instead=frozenset().union(*(rule.instead for rule in rules)),
        )


class _Rule(Protocol):
    """One of those that a policy is made of. It is asked of every snapshot, the newest first."""

    def keeps(self, one: Dated, local: datetime, *, is_oldest: bool) -> str | None:
        """Why it keeps ``one``, of the time ``local``; None: it does not."""

    @property
    def refusal(self) -> str:
        """Why the last one was not kept."""

    @property
    def instead(self) -> frozenset[str]:
        """Those without which the last one, which was not kept, might be."""


class _Labelled:
    """Keeps what has the labels."""

    instead: frozenset[str] = frozenset()

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._text = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))

    def keeps(self, one: Dated, local: datetime, *, is_oldest: bool) -> str | None:
        """See `_Rule`."""
        del local, is_oldest
        has = self._labels.items() <= one.labels.items()
        return f"label {self._text}" if has else None

    @property
    def refusal(self) -> str:
        """See `_Rule`."""
        return f"no label {self._text}"


class _Within:
    """Keeps what is younger than a span, before the newest that is not later than now."""

    def __init__(self, span: str, counted: Sequence[Dated], zone: tzinfo, now: datetime) -> None:
        newest = next((one for one in counted if one.at <= now), None)
        self._span = span
        self._from = None if newest is None else CalendarSpan.parse(span).before(newest.at, zone)
        self.instead = frozenset([newest.id] if newest is not None else ())

    def keeps(self, one: Dated, local: datetime, *, is_oldest: bool) -> str | None:
        """See `_Rule`."""
        del local, is_oldest
        return f"within {self._span}" if self._from is None or one.at > self._from else None

    @property
    def refusal(self) -> str:
        """See `_Rule`."""
        return f"older than {self._span}"


class _Counting:
    """Keeps the newest of each of the last ``count`` periods that have one."""

    def __init__(self, unit: str, count: int) -> None:
        self._name, self._period = _PERIODS[unit]
        self._unit = unit
        self._count = count
        self._last: object = None
        self._kept: list[str] = []

    def keeps(self, one: Dated, local: datetime, *, is_oldest: bool) -> str | None:
        """See `_Rule`."""
        if len(self._kept) == self._count:
            return None
        period = self._period(local)
        is_new = period != self._last
        if not is_new and not is_oldest:
            return None
        self._last = period
        self._kept.append(one.id)
        return self._name if is_new else f"oldest {self._name}"

    @property
    def instead(self) -> frozenset[str]:
        """See `_Rule`."""
        return frozenset(self._kept if len(self._kept) == self._count else self._kept[-1:])

    @property
    def refusal(self) -> str:
        """See `_Rule`."""
        if len(self._kept) == self._count:
            return f"{self._count} newer {self._unit}s"
        return f"the {self._unit} has {self._kept[-1]}"


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
    yield from (_Labelled(labels) for labels in policy.labels)
    if policy.within:
        yield _Within(policy.within, counted, zone, now)
    for unit, (name, _) in _PERIODS.items():
        if count := getattr(policy, name):
            yield _Counting(unit, count)
