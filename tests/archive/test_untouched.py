"""Files left out are not touched, unsettled ones are read again, and times of access stay."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.archive import trees
from tests.archive.archiving import LATER_NS, archive, content, entries
from tests.archive.memory import MemoryPackStore
from tests.archive.test_restore_system import NOBODY, as_nobody, mounted
from tests.examples import examples

from holdfast.archive import file_systems
from holdfast.archive.create import read
from holdfast.archive.create.ignore import Excludes
from holdfast.archive.create.source import DirectorySource
from holdfast.archive.create.walk import WalkOptions
from holdfast.archive.directories import open_directory
from holdfast.archive.file_systems import MAX_RACY_NS, RACY_NS, racy_ns, tells_of_changes
from holdfast.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from holdfast.form.terms import EntryWarning

if TYPE_CHECKING:
    from holdfast.archive.create.create import Archived

_NAMES = st.sampled_from(["a", "b", "a.o", "ab", "mnt", "d"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_PATTERNS = st.lists(
    st.tuples(
        st.sampled_from(["", "!"]),
        st.sampled_from(["", "/", "**/"]),
        st.sampled_from(["a", "a*", "?", "mnt", "d/*", "a/b", "*.o", "**"]),
        st.sampled_from(["", "/"]),
    ).map("".join),
    max_size=4,
)


def create(root: Path, *exclude: str | bytes, **options: Any) -> tuple[list[bytes], Archived]:
    store = MemoryPackStore()
    source = DirectorySource(root, WalkOptions(exclude=exclude, **options))
    archived = archive(root, store, source=source)
    return list(entries(store, archived.root)), archived


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """The paths of all that is looked at."""
    touched: set[bytes] = set()

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int):
                where = options.get("dir_fd")
                above = b"" if where is None else os.readlink(b"/proc/self/fd/%d" % where) + b"/"
                touched.add(os.path.normpath(above + os.fsencode(path)))
            return real(path, *arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("stat", "lstat", "open", "listdir", "scandir", "readlink", "listxattr"):
        watch(name)
    return touched


def test_what_is_excluded_is_not_touched(watched: set[bytes]) -> None:
    @examples(150)
    @given(
        files=st.lists(_PATHS, max_size=8),
        patterns=_PATTERNS,
        one_file_system=st.booleans(),
        exclude_caches=st.booleans(),
    )
    def check(
        files: list[str], patterns: list[str], *, one_file_system: bool, exclude_caches: bool
    ) -> None:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(os.path.realpath(directory))
            for file in files:
                if not (root / file).is_dir() and not any(
                    above.is_file() for above in (root / file).parents
                ):
                    trees.write(root, file)
            excludes = Excludes(patterns)
            hidden = {
                os.fsencode(path)
                for path in root.rglob("*")
                if excludes.leaves_out(os.fsencode(path.relative_to(root)), path.is_dir)
            }
            watched.clear()

            create(root, *patterns, one_file_system=one_file_system, exclude_caches=exclude_caches)

            assert os.fsencode(root) in watched
            assert not [
                path
                for path in watched
                if any(path == out or path.startswith(out + b"/") for out in hidden)
            ]

    check()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("pattern", ["d/*", "x", "/d/x", "**/x", "x/", "?"])
def test_what_cannot_be_looked_at_fails_nothing_when_it_is_excluded(pattern: str) -> None:
    root = Path(tempfile.mkdtemp())
    (root / "d" / "x").mkdir(parents=True)
    for path in (root, root / "d", root / "d" / "x"):
        os.chown(path, NOBODY, NOBODY)
    os.chmod(root / "d", 0o444)
    try:
        with as_nobody():
            with pytest.raises(ForbiddenError):
                create(root)
            excluded, _ = create(root, pattern)
    finally:
        shutil.rmtree(root)

    assert excluded == ([b""] if pattern == "?" else [b"", b"d"])


def test_what_is_excluded_is_not_warned_of(tmp_path: Path) -> None:
    trees.strange(tmp_path)

    found, archived = create(tmp_path, "socket", "pipe")

    assert (found, archived.warning_count) == ([b""], 0)


def test_a_pattern_that_matches_nothing_in_the_whole_walk_is_told(tmp_path: Path) -> None:
    for name in ("a.log", "keep/a.log", "build/x", "b"):
        trees.write(tmp_path, name)

    _, archived = create(tmp_path, "*.log", "# no pattern", "!b", "build", "buidl/", b"\xff*")

    assert archived.warnings == (
        EntryWarning(kind="pattern", path=b"", detail="the pattern 'buidl/' matched nothing"),
        EntryWarning(kind="pattern", path=b"", detail="the pattern '\ufffd*' matched nothing"),
    )


def test_a_pattern_that_a_later_one_overrules_has_matched(tmp_path: Path) -> None:
    trees.write(tmp_path, "debug.log")

    _, archived = create(tmp_path, "*.log", "debug.log", "!debug*", "!*.log")

    assert archived.warning_count == 0


def test_patterns_are_bytes(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xe4.key")).touch()

    assert create(tmp_path, b"\xe4*")[0] == [b""]
    assert create(tmp_path, os.fsdecode(b"\xe4*"))[0] == [b""]


def again(root: Path, store: MemoryPackStore, parent: Archived | None, started: int) -> Archived:
    return archive(root, store, parent, started_at_ns=started)


@pytest.mark.parametrize("later_seconds", [3, 35])
def test_what_is_written_through_a_mapping_without_a_sign_is_in_the_next_snapshot(
    tmp_path: Path, later_seconds: int
) -> None:
    file = tmp_path / "db"
    file.write_bytes(b"0" * 8192)
    store = MemoryPackStore()
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 8192) as mapped:
        mapped[0:4] = b"AAAA"
        dirty = os.stat(file).st_ctime_ns
        first = again(tmp_path, store, None, dirty + later_seconds * 10**9)
        mapped[0:4] = b"BBBB"  # the page is dirty still: nothing tells
        second = again(tmp_path, store, first, dirty + LATER_NS // 2)

    assert content(store, first.root, b"db")[:4] == b"AAAA"
    assert content(store, second.root, b"db")[:4] == b"BBBB"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount something")
def test_files_in_memory_are_read_again_each_time(tmp_path: Path) -> None:
    store = MemoryPackStore()
    trees.write(tmp_path, "other", b"1")
    with mounted(tmp_path / "mem", "1m"):
        file = tmp_path / "mem" / "db"
        file.write_bytes(b"0" * 8192)
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 8192) as mapped:
            mapped[0:4] = b"AAAA"
            first = archive(tmp_path, store)
            mapped[0:4] = b"BBBB"
            second = archive(tmp_path, store, first)

    assert content(store, second.root, b"mem/db")[:4] == b"BBBB"


def test_file_systems_of_the_kernel_and_in_memory_do_not_tell_of_changes() -> None:
    for path, expected in (("/proc", False), ("/sys", False)):
        fd = open_directory(path)
        assert tells_of_changes(fd) is expected
        os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        tells_of_changes(-1)


@pytest.mark.parametrize(
    ("expire", "interval", "expected"),
    [
        ("3000", "500", RACY_NS),
        ("100", "100", RACY_NS),
        ("12000", "1000", 140_000_000_000),
        ("3000", "0", MAX_RACY_NS),
        ("99999999", "500", MAX_RACY_NS),
        (None, None, RACY_NS),
        ("nonsense", "500", RACY_NS),
    ],
)
def test_a_machine_that_writes_back_later_has_longer_to_wait(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expire: str | None,
    interval: str | None,
    expected: int,
) -> None:
    for name, value in (("expire", expire), ("writeback", interval)):
        if value is not None:
            (tmp_path / f"dirty_{name}_centisecs").write_text(f"{value}\n")
    monkeypatch.setattr(file_systems, "_SETTINGS", tmp_path)

    assert racy_ns() == expected


def exchanging(root: Path, times: int) -> DirectorySource:
    """A source of ``root``, which is exchanged for a copy and removed while it is walked."""

    class Exchanged(DirectorySource):
        left = times

        def scan(self, warn: Any) -> Any:
            for number, scanned in enumerate(super().scan(warn)):
                if number == 2 and self.left:
                    self.left -= 1
                    old = root.with_name("old")
                    os.rename(root, old)
                    shutil.copytree(old, root)
                    shutil.rmtree(old)
                yield scanned

    return Exchanged(root)


@pytest.mark.parametrize("times", [1, 7, 8, 100])
def test_a_directory_that_is_exchanged_during_the_walk_is_archived_whole_or_not_at_all(
    tmp_path: Path, times: int
) -> None:
    root = tmp_path / "app"
    for number in range(30):
        trees.write(root, f"d{number % 7}/f{number}", b"%d" % number)
    store = MemoryPackStore()
    whole = archive(root, store)

    if times < 8:
        archived = archive(root, store, source=exchanging(root, times))

        assert (archived.entries, archived.warning_count) == (whole.entries, 0)
    else:
        with pytest.raises(ConflictError, match="exchanged"):
            archive(root, store, source=exchanging(root, times))


def test_a_directory_that_is_taken_away_during_the_walk_is_not_found(tmp_path: Path) -> None:
    root = tmp_path / "app"
    for number in range(9):
        trees.write(root, f"d{number}/f", b"1")

    class Removed(DirectorySource):
        def scan(self, warn: Any) -> Any:
            for scanned in super().scan(warn):
                yield scanned
                shutil.rmtree(root, ignore_errors=True)

    with pytest.raises(NotFoundError):
        archive(root, MemoryPackStore(), source=Removed(root))


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Sizes that files claim by name, whatever they have."""
    claimed: dict[str, int] = {}
    real_stat, real_fstat = os.stat, os.fstat

    def lie(status: os.stat_result, name: str) -> os.stat_result:
        if name not in claimed:
            return status
        more = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blocks")
        return os.stat_result(
            [*status[:6], claimed[name], *status[7:]],
            {key: getattr(status, key) for key in more},
        )

    def fake_stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        name = "" if isinstance(path, int) else os.path.basename(os.fsdecode(path))
        return lie(real_stat(path, *arguments, **options), name)

    def fake_fstat(fd: int) -> os.stat_result:
        return lie(real_fstat(fd), os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(os, "stat", fake_stat)
    monkeypatch.setattr(os, "fstat", fake_fstat)
    return claimed


@pytest.mark.parametrize(
    ("claimed", "real"),
    [(0, 1), (0, 40_000), (4096, 5), (100, 0), (100, 200), (100_000, 7), (50_000, 60_000)],
)
def test_of_a_file_that_has_not_what_it_claims_all_is_kept_that_can_be_read(
    tmp_path: Path, claims: dict[str, int], claimed: int, real: int
) -> None:
    store = MemoryPackStore()
    trees.write(tmp_path, "before", b"1")
    file = tmp_path / "made up"
    file.write_bytes(b"x" * real)
    trees.write(tmp_path, "other", b"2" * 100)
    claims["made up"] = claimed

    first = archive(tmp_path, store)
    times = os.stat(file).st_mtime_ns
    file.write_bytes(b"y" * real)
    os.utime(file, ns=(times, times))
    second = archive(tmp_path, store, first)

    assert first.warning_count == second.warning_count == 0
    assert content(store, first.root, b"made up") == b"x" * real
    assert content(store, second.root, b"made up") == b"y" * real
    assert entries(store, first.root)[b"made up"].size == real
    assert content(store, first.root, b"other") == b"2" * 100


def test_a_file_that_never_ends_is_refused_or_skipped(
    tmp_path: Path, claims: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_MADE_UP_BYTES", 1000)
    trees.write(tmp_path, "endless", b"x" * 1001)
    trees.write(tmp_path, "long", b"x" * 1000)
    claims["endless"] = claims["long"] = 0

    with pytest.raises(InvalidError, match="endless"):
        create(tmp_path)
    found, archived = create(tmp_path, unreadable="skip")

    assert found == [b"", b"long"]
    assert [(w.kind, w.path) for w in archived.warnings] == [("unreadable", b"endless")]


def test_what_the_kernel_makes_up_is_archived_as_it_reads() -> None:
    store = MemoryPackStore()
    source = DirectorySource("/proc/sys/kernel/random", WalkOptions(unreadable="skip"))
    archived = archive(Path("/"), store, source=source)

    said = content(store, archived.root, b"boot_id")

    assert said == Path("/proc/sys/kernel/random/boot_id").read_bytes()


@pytest.mark.parametrize("year", [1000, 1677, 2263, 2400])
def test_a_time_that_a_snapshot_cannot_hold_is_warned_of(tmp_path: Path, year: int) -> None:
    seconds = (year - 1970) * 31_556_952
    file = trees.write(tmp_path, "a/f", b"1")
    os.utime(file, (seconds, seconds))
    kept = os.stat(file).st_mtime_ns
    store = MemoryPackStore()

    first = archive(tmp_path, store)
    archived = archive(tmp_path, store, first)

    for each in (first, archived):
        if entries(store, each.root)[b"a/f"].mtime_ns == kept:
            assert each.warning_count == 0  # the file system itself keeps no such time
        else:
            assert [(w.kind, w.path) for w in each.warnings] == [("attribute", b"a/f")]


def test_further_names_of_a_symlink_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("x")
    for name in ("b", "c"):
        os.link(tmp_path / "a", tmp_path / name, follow_symlinks=False)

    found, archived = create(tmp_path)

    assert found == [b"", b"a", b"b", b"c"]
    assert [(w.kind, w.path) for w in archived.warnings] == [("link", b"b"), ("link", b"c")]


def test_archiving_does_not_change_times_of_access(tmp_path: Path) -> None:
    trees.write(tmp_path, "d/small", b"1")
    trees.write(tmp_path, "d/large", b"1" * 100_000)
    trees.write(tmp_path, "d/CACHEDIR.TAG", b"no tag")
    old = [tmp_path / "d" / name for name in os.listdir(tmp_path / "d")]
    for path in (*old, tmp_path / "d", tmp_path):
        os.utime(path, ns=(1, os.stat(path).st_mtime_ns))

    create(tmp_path, exclude_caches=True)

    assert {os.stat(path).st_atime_ns for path in (*old, tmp_path / "d", tmp_path)} == {1}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_files_of_others_are_archived_though_their_times_of_access_change() -> None:
    root = Path(tempfile.mkdtemp())
    trees.write(root, "d/f", b"1")
    os.chmod(root, 0o755)  # noqa: S103 - for others to read
    try:
        with as_nobody():
            found, _ = create(root)
    finally:
        shutil.rmtree(root)

    assert found == [b"", b"d", b"d/f"]
