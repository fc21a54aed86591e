"""Which snapshots a policy keeps, beside a table of dates, beside restic, and by its laws."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.names import id_floor
from holdfast.domain.retention import CalendarSpan, Dated, Fate, Retention, decide
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)


def dated(at: str | datetime, number: int = 0, **labels: str) -> Dated:
    """A snapshot that is ``ok``, made at a time of UTC."""
    at = at if isinstance(at, datetime) else datetime.fromisoformat(at).replace(tzinfo=UTC)
    return Dated(id=f"{id_floor(at)[:-4]}{number:04x}", at=at, labels=labels)


def decided(
    times: Iterable[str], policy: Retention, zone: ZoneInfo | None = None
) -> dict[str, Fate]:
    """The fates of snapshots made at ``times`` of UTC, by these."""
    snapshots = {text: dated(text, number) for number, text in enumerate(times)}
    fates = decide([*snapshots.values()], policy, zone=zone or UTC, now=NOW)
    by_id = {fate.snapshot.id: fate for fate in fates}
    return {text: by_id[one.id] for text, one in snapshots.items()}


def kept(times: Iterable[str], policy: Retention, zone: ZoneInfo | None = None) -> list[str]:
    """Those of ``times`` that are kept."""
    return [text for text, fate in decided(times, policy, zone).items() if fate.kept]


# --- a table of dates ---

TABLE = [
    "2024-12-30 09:00",  # ISO week 1 of 2025
    "2024-12-31 23:30",
    "2025-01-01 00:30",  # week 1, too
    "2025-06-15 12:00",
    "2026-08-31 12:00",
    "2026-09-30 12:00",
    "2026-10-30 08:00",
    "2026-10-31 08:00",
    "2026-10-31 20:00",
    "2026-11-01 07:00",  # a Sunday
    "2026-11-01 07:30",
    "2026-11-01 08:10",
    "2026-11-02 08:20",  # a Monday
    "2026-11-02 08:50",
]
OLDEST, NEWEST = TABLE[0], TABLE[-1]

RULES: dict[str, tuple[Retention, list[str]]] = {
    "last": (Retention(last=3), [*TABLE[-3:]]),
    "hourly": (Retention(hourly=3), [TABLE[10], TABLE[11], NEWEST]),
    "daily": (Retention(daily=4), [TABLE[6], TABLE[8], TABLE[11], NEWEST]),
    "weekly": (Retention(weekly=3), [TABLE[5], TABLE[11], NEWEST]),
    "weeks of two years": (Retention(weekly=6), [TABLE[2], *TABLE[3:6], TABLE[11], NEWEST]),
    "monthly": (Retention(monthly=3), [TABLE[5], TABLE[8], NEWEST]),
    "yearly": (Retention(yearly=2), [TABLE[3], NEWEST]),
    "the oldest where years are fewer": (Retention(yearly=4), [OLDEST, TABLE[1], TABLE[3], NEWEST]),
    "several": (Retention(last=1, daily=2, yearly=2), [TABLE[3], TABLE[11], NEWEST]),
    "within hours": (Retention(within="1d1h"), [*TABLE[11:]]),
    "within a month": (Retention(within="1m"), [*TABLE[6:]]),
    "within a year and months": (Retention(within="1y5m"), [*TABLE[3:]]),
    "within longer than there are times": (Retention(within="9999y"), TABLE),
    "nothing stated": (Retention(), TABLE),
}


@pytest.mark.parametrize(("policy", "expected"), RULES.values(), ids=RULES)
def test_each_rule_keeps_what_was_worked_out_by_hand(
    policy: Retention, expected: list[str]
) -> None:
    assert kept(TABLE, policy) == expected


def test_labels_keep_what_has_all_of_one_set() -> None:
    days = [
        dated("2026-10-01", release="1", stage="live"),
        dated("2026-10-02", release="1"),
        dated("2026-10-03", why="audit"),
        dated("2026-10-04"),
        dated("2026-10-05"),
    ]
    policy = Retention(labels=({"release": "1", "stage": "live"}, {"why": "audit"}))

    fates = decide(days, policy, zone=UTC, now=NOW)

    assert [fate.reasons for fate in fates] == [
        ("newest",),
        ("no label release=1,stage=live", "no label why=audit"),
        ("label why=audit",),
        ("no label release=1,stage=live", "no label why=audit"),
        ("label release=1,stage=live",),
    ]


def test_the_reasons_say_which_snapshots_make_one_superfluous() -> None:
    times = ["2026-10-30 08:00", "2026-10-31 08:00", "2026-10-31 20:00", "2026-11-01 07:00"]

    fates = decided(times, Retention(last=1, daily=3, within="1h"))
    ids = [fates[text].snapshot.id for text in times]

    assert fates[times[0]].reasons == ("daily",)
    assert fates[times[1]].reasons == (
        "older than 1h",
        "1 newer snapshots",
        f"the day has {ids[2]}",
    )
    assert fates[times[1]].instead == {ids[2], ids[3]}
    assert fates[times[3]].reasons == ("within 1h", "last", "daily")


def test_the_oldest_is_kept_while_there_is_room_for_more() -> None:
    times = ["2026-10-30 08:00", "2026-10-30 09:00", "2026-10-31 20:00"]

    fates = decided(times, Retention(daily=3))

    assert fates[times[0]].reasons == ("oldest daily",)


# --- what goes before rules ---


def test_only_those_that_are_ok_count_and_go() -> None:
    failed = Dated(id="b", at=NOW - timedelta(days=1), labels={}, state="failure")
    pending = Dated(id="c", at=NOW, labels={}, state="pending")
    good = [dated("2026-10-01"), dated("2026-10-02"), dated("2026-10-03")]

    fates = decide([failed, pending, *good], Retention(last=2), zone=UTC, now=NOW)

    assert [(fate.kept, fate.reasons[0]) for fate in fates] == [
        (True, "it is pending"),
        (True, "it is failure"),
        (True, "last"),
        (True, "last"),
        (False, "2 newer snapshots"),
    ]


def test_what_is_held_stays_and_stands_for_no_other() -> None:
    held = Dated(id="0", at=NOW - timedelta(days=3), labels={}, held=True)
    others = [dated("2026-10-01"), dated("2026-10-02"), dated("2026-10-03")]

    fates = decide([held, *others], Retention(last=1, daily=2), zone=UTC, now=NOW)

    assert {fate.snapshot.id: fate.reasons for fate in fates if fate.kept} == {
        "0": ("last", "daily"),
        others[2].id: ("daily",),
    }
    fates = decide([held, *others, dated("2026-11-01")], Retention(last=1), zone=UTC, now=NOW)
    assert [fate.reasons for fate in fates if fate.kept] == [("last",), ("held",)]


def test_the_newest_made_stays_whatever_it_is_dated() -> None:
    first, second = dated("2026-10-01"), dated("2026-10-02")
    late = Dated(id="f", at=first.at - timedelta(days=700), labels={})

    fates = decide([first, second, late], Retention(last=1), zone=UTC, now=NOW)

    assert [fate.reasons for fate in fates if fate.kept] == [("last",), ("newest",)]
    assert [fate.instead for fate in fates if not fate.kept] == [{second.id, "f"}]


def test_what_a_clock_that_was_ahead_has_dated_stays_and_stands_for_no_other() -> None:
    ahead = [dated(NOW + timedelta(days=365), number) for number in range(3)]
    right = [dated(f"2026-10-0{day}") for day in range(1, 6)]

    fates = decide([*ahead, *right], Retention(last=2, within="1d"), zone=UTC, now=NOW)

    assert [fate.kept for fate in fates] == [True] * 5 + [False] * 3
    assert fates[0].reasons == ("its time is yet to come",)


def test_only_those_with_the_labels_are_looked_at() -> None:
    days = [
        dated("2026-10-01", kind="hand"),
        dated("2026-10-02", kind="cron"),
        dated("2026-10-03", kind="cron"),
        dated("2026-10-04", kind="hand"),
    ]

    fates = decide(days, Retention(last=1), zone=UTC, now=NOW, labels={"kind": "cron"})

    assert [(fate.kept, fate.reasons[0]) for fate in fates] == [
        (True, "it has other labels"),
        (True, "last"),
        (False, "1 newer snapshots"),
        (True, "it has other labels"),
    ]


def test_where_all_are_dated_a_little_ahead_all_are_within() -> None:
    soon = [dated(NOW + timedelta(seconds=seconds)) for seconds in (10, 20)]

    fates = decide(soon, Retention(within="1h"), zone=UTC, now=NOW)

    assert [fate.reasons for fate in fates] == [("within 1h",)] * 2


# --- daylight saving ---


def test_the_hour_that_clocks_repeat_in_autumn_is_one_hour() -> None:
    times = [
        "2026-10-24 23:30",  # 01:30
        "2026-10-25 00:30",  # 02:30 in summer time
        "2026-10-25 01:30",  # 02:30 again
        "2026-10-25 02:30",  # 03:30
    ]

    assert kept(times, Retention(hourly=3), BERLIN) == [times[0], times[2], times[3]]
    assert kept(times, Retention(hourly=3)) == [*times[1:]]


def test_the_hour_that_clocks_skip_in_spring_is_none() -> None:
    times = ["2026-03-28 23:30", "2026-03-29 00:30", "2026-03-29 01:30", "2026-03-29 02:30"]

    fates = decided(times, Retention(hourly=4), BERLIN)

    assert [fate.reasons for fate in fates.values()] == [("hourly",)] * 4


@pytest.mark.parametrize(
    ("change", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)], ids=["spring", "autumn"]
)
def test_a_day_on_which_clocks_change_ends_by_the_clocks(change: str, hours: int) -> None:
    midnight = datetime.fromisoformat(change).replace(tzinfo=BERLIN).astimezone(UTC)
    last = midnight + timedelta(hours=hours, minutes=-1)
    next_day = midnight + timedelta(hours=hours)
    times = [f"{at:%Y-%m-%d %H:%M}" for at in (midnight, last, next_day)]

    assert kept(times, Retention(daily=2), BERLIN) == times[1:]


@pytest.mark.parametrize(
    ("newest", "span", "expected"),
    [
        ("2026-03-29 10:00", "1d", "2026-03-28 11:00"),  # 12:00 to 12:00, 23 hours
        ("2026-10-25 11:00", "1d", "2026-10-24 10:00"),  # 25 hours
        ("2026-03-29 10:00", "24h", "2026-03-28 10:00"),
        ("2026-03-30 00:30", "1d", "2026-03-29 01:30"),  # 02:30 was not: by the offset of then
        ("2026-10-26 01:30", "1d", "2026-10-25 01:30"),  # 02:30 was twice
        ("2026-03-31 10:00", "1m", "2026-03-03 11:00"),  # there is no 31 February
        ("2024-02-29 11:00", "1y", "2023-03-01 11:00"),
        ("2026-01-15 11:00", "1m20d", "2025-11-25 11:00"),
    ],
)
def test_a_span_before_a_time_goes_by_the_calendar(newest: str, span: str, expected: str) -> None:
    at = datetime.fromisoformat(newest).replace(tzinfo=UTC)

    found = CalendarSpan.parse(span).before(at, BERLIN)

    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_west_of_greenwich_too() -> None:
    at = datetime(2026, 3, 9, 6, 30, tzinfo=UTC)  # 02:30 in New York

    assert CalendarSpan.parse("1d").before(at, NEW_YORK) == datetime(2026, 3, 8, 6, 30, tzinfo=UTC)


# --- bad input ---


@pytest.mark.parametrize(
    "policy",
    [
        Retention(last=-1),
        Retention(yearly=-7),
        Retention(within="3w"),
        Retention(within="h"),
        Retention(within="1d2y"),
        Retention(labels=({},)),
        Retention(labels=({"": "x"},)),
        Retention(labels=({"x": ""},)),
    ],
)
def test_a_policy_that_is_none_is_refused(policy: Retention) -> None:
    with pytest.raises(InvalidError):
        policy.check()


def test_a_policy_that_is_one_is_not() -> None:
    Retention(last=1, within="1y2m3d4h", labels=({"x": "y"},), time_zone="Europe/Berlin").check()


# --- laws ---

COUNTS = st.integers(0, 5)
POLICIES = st.builds(
    Retention,
    last=COUNTS,
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    yearly=COUNTS,
    within=st.sampled_from(["", "5h", "2d", "1m", "1y"]),
    labels=st.sampled_from([(), ({"a": "1"},), ({"a": "1", "b": "1"}, {"b": "2"})]),
)
LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"))
HOURS = st.one_of(st.integers(0, 80), st.integers(0, 20_000))


@st.composite
def histories(draw: st.DrawFn) -> list[Dated]:
    """Snapshots of an app."""
    rows = draw(st.lists(st.tuples(HOURS, LABELS, st.booleans(), st.booleans()), max_size=25))
    return [
        Dated(
            id=f"{draw(st.integers(0, 999)):03d}{number:03d}",
            at=NOW - timedelta(hours=hours),
            labels=labels,
            held=held and is_rare,
            state="failure" if is_rare and not held else "ok",
        )
        for number, (hours, labels, held, is_rare) in enumerate(rows)
    ]


@given(histories(), POLICIES, st.sampled_from([UTC, BERLIN, NEW_YORK]))
def test_the_newest_the_held_and_what_is_not_ok_always_stay(
    snapshots: list[Dated], policy: Retention, zone: Any
) -> None:
    fates = decide(snapshots, policy, zone=zone, now=NOW)
    removed = {fate.snapshot.id for fate in fates if not fate.kept}

    newest = max((one.id for one in snapshots if one.state == "ok"), default=None)
    assert newest not in removed
    assert not removed & {one.id for one in snapshots if one.held or one.state != "ok"}
    assert len(fates) == len(snapshots)


@given(histories(), POLICIES, st.sampled_from([UTC, BERLIN]))
def test_what_is_kept_is_kept_again_and_what_makes_others_superfluous_is_kept(
    snapshots: list[Dated], policy: Retention, zone: Any
) -> None:
    fates = decide(snapshots, policy, zone=zone, now=NOW)
    left = [fate.snapshot for fate in fates if fate.kept]

    again = decide(left, policy, zone=zone, now=NOW)

    assert all(fate.kept for fate in again)
    ids = {one.id for one in left}
    assert all(fate.instead <= ids and fate.instead for fate in fates if not fate.kept)


@given(histories(), POLICIES, st.data())
def test_what_is_superfluous_stays_so_whatever_else_goes_that_it_does_not_count_on(
    snapshots: list[Dated], policy: Retention, data: st.DataObject
) -> None:
    superfluous = [fate for fate in decide(snapshots, policy, zone=UTC, now=NOW) if not fate.kept]
    for fate in superfluous:
        older = {one.id for one in snapshots if one.at < fate.snapshot.at}
        spared = fate.instead | {fate.snapshot.id} | older
        gone = {one.id for one in snapshots if one.id not in spared and data.draw(st.booleans())}

        left = [one for one in snapshots if one.id not in gone]
        again = {one.snapshot.id: one for one in decide(left, policy, zone=UTC, now=NOW)}

        assert not again[fate.snapshot.id].kept


@given(histories(), POLICIES)
def test_a_year_more_on_the_clock_changes_nothing(
    snapshots: list[Dated], policy: Retention
) -> None:
    now = decide(snapshots, policy, zone=UTC, now=NOW)
    later = decide(snapshots, policy, zone=UTC, now=NOW + timedelta(days=365))

    assert [fate.kept for fate in now] == [fate.kept for fate in later]


# --- beside restic ---

DATES = [
    "2024-12-29 12:00:00",
    "2024-12-30 12:00:00",
    "2025-01-01 00:30:00",
    "2025-11-30 10:00:00",
    "2026-01-31 10:00:00",
    "2026-02-28 23:59:00",
    "2026-03-28 02:30:00",
    "2026-03-29 01:30:00",
    "2026-03-29 03:30:00",
    "2026-03-29 12:00:00",
    "2026-03-30 02:30:00",
    "2026-10-24 02:30:00",
    "2026-10-25 01:30:00",
    "2026-10-25 02:30:00",
    "2026-10-25 03:30:00",
    "2026-10-25 12:00:00",
    "2026-10-26 02:30:00",
    "2026-10-26 02:45:00",
]
"""By the clocks of Berlin, around both changes. What is there twice is the later to restic."""

BESIDE = [
    Retention(last=4),
    Retention(hourly=6),
    Retention(daily=5),
    Retention(weekly=4),
    Retention(monthly=4),
    Retention(yearly=5),
    Retention(last=1, hourly=3, daily=3, weekly=3, monthly=3, yearly=2),
    Retention(within="1d"),
    Retention(within="7m2d1h"),
    Retention(within="1y", labels=({"odd": "1"},)),
]


def restic(repository: Path, *arguments: str) -> str:
    """The output of restic."""
    environment = {
        **os.environ,
        "TZ": "Europe/Berlin",
        "RESTIC_REPOSITORY": str(repository),
        "RESTIC_PASSWORD": "secret",
    }
    command = ["restic", "--no-cache", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of restic with a snapshot of each date."""
    if shutil.which("restic") is None:
        pytest.skip("restic is not installed")
    directory = tmp_path_factory.mktemp("restic")
    (directory / "file").write_text("content")
    repository = directory / "repository"
    restic(repository, "init")
    for number, date in enumerate(DATES):
        tag = f"odd={number % 2}"
        restic(repository, "backup", "--tag", tag, "--time", date, str(directory / "file"))
    return repository


def _flags(policy: Retention) -> list[str]:
    names = ("last", "hourly", "daily", "weekly", "monthly", "yearly", "within")
    flags = [f"--keep-{name}={value}" for name in names if (value := getattr(policy, name))]
    return flags + [f"--keep-tag={_tags(labels)}" for labels in policy.labels]


def _tags(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


@pytest.mark.long
@pytest.mark.parametrize("policy", BESIDE, ids=lambda policy: " ".join(_flags(policy)))
def test_restic_keeps_the_same(repository: Path, policy: Retention) -> None:
    found = json.loads(restic(repository, "forget", "--dry-run", "--json", *_flags(policy)))
    theirs = {datetime.fromisoformat(one["time"]) for one in found[0]["keep"]}

    snapshots = [
        dated(
            datetime.fromisoformat(date).replace(tzinfo=BERLIN, fold=1).astimezone(UTC),
            number,
            odd=str(number % 2),
        )
        for number, date in enumerate(DATES)
    ]
    fates = decide(snapshots, policy, zone=BERLIN, now=NOW)

    version = re.search(r"restic (\d+)\.(\d+)", restic(repository, "version"))
    assert version is not None
    keeps_oldest = (int(version[1]), int(version[2])) >= (0, 16)
    ours = {
        fate.snapshot.at
        for fate in fates
        if fate.kept and (keeps_oldest or not all(r.startswith("oldest") for r in fate.reasons))
    }
    assert ours == theirs
