"""``--exclude`` leaves out what git would, and no pattern takes long."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.examples import examples

from holdfast.archive.create.ignore import Excludes
from holdfast.archive.create.patterns import MAX_COMPONENTS, MAX_PATTERN_CHARS
from holdfast.archive.create.source import DirectorySource
from holdfast.archive.create.walk import WalkOptions
from holdfast.errors import InvalidError
from holdfast.form.entries import Kind

GIT = shutil.which("git")


def make(root: Path, files: list[str]) -> None:
    """Empty ``files``; where one is a directory already, or is in a file, it is left out."""
    for name in files:
        path = root / name
        if not path.is_dir() and not any((root / above).is_file() for above in Path(name).parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def kept(root: Path, patterns: list[str]) -> set[bytes]:
    """The files that a walk finds."""
    source = DirectorySource(root, WalkOptions(exclude=tuple(patterns)))
    try:
        return {found.path for found in source.scan(lambda _: None) if found.kind == Kind.FILE}
    finally:
        source.close()


def kept_by_git(root: Path, patterns: list[str]) -> set[bytes]:
    """The files that git would add, were ``patterns`` its only ones."""
    (root / ".git/info").mkdir(parents=True)
    for name in ("refs", "objects"):
        (root / ".git" / name).mkdir()
    (root / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (root / ".git/config").write_text("[core]\nrepositoryformatversion = 0\n")
    (root / ".git/info/exclude").write_text("".join([f"{line}\n" for line in patterns]))
    command = [str(GIT), "-c", "core.excludesFile=", "-c", "safe.directory=*"]
    listed = subprocess.run(
        [*command, "ls-files", "-o", "-z", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    shutil.rmtree(root / ".git")
    return set(listed.stdout.split(b"\0")) - {b""}


COMPONENTS = st.sampled_from(
    [
        "a",
        "b",
        "sub",
        "*",
        "**",
        "?",
        "a*",
        "*b",
        "*a*b",
        "s?b",
        "[ab]",
        "[!a]",
        "*.txt",
        "[[:alpha:]]",
    ]
)
PATTERNS = st.builds(
    lambda negation, start, parts, end: f"{negation}{start}{'/'.join(parts)}{end}",
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(COMPONENTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)
NAMES = st.sampled_from(["a", "b", "sub", "ab", "a.txt", "x"])
FILES = st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=8)
TREE = ["a", "b.txt", "sub/a", "sub/b.txt", "foo/keep", "foo/x", "foo/d/y", "x/foo/z"]


@pytest.mark.skipif(GIT is None, reason="git is not installed")
@settings(examples(150), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PATTERNS, min_size=1, max_size=4), FILES)
@example(["*", "!*/", "!*.txt"], TREE)
@example(["foo/**", "!foo/keep"], TREE)
@example(["/foo/**/"], TREE)
@example(["*", "!sub/**"], TREE)
@example(["**/", "!sub/"], TREE)
@example(["*/", "!foo/"], TREE)
@example(["[[:alpha:]]"], TREE)
@example(["[[:digit:]-x]", "[]a]", "[^]b]*", "[a-]", "[!-a]"], TREE)
@example(["a\\", "\\a", "b.txt\\ ", "sub/a  ", "# sub", "\\#", "", "  ", "!"], TREE[1:])
@example(["foo/[d/]/y", "foo\\/x", "sub//a", "//a", "/"], TREE)
def test_what_is_kept_is_what_git_keeps(patterns: list[str], files: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make(root, files)
        ours = [pattern for pattern in patterns if not pattern.endswith("a\\")]

        assert kept(root, ours) == kept_by_git(root, patterns)


@pytest.mark.parametrize(
    ("patterns", "left_out"),
    [
        (["*", "!*/", "!*.txt"], set(TREE) - {"b.txt", "sub/b.txt"}),
        (["foo/**", "!foo/keep"], {"foo/x", "foo/d/y"}),
        (["/foo/**/"], {"foo/d/y"}),
        (["*", "!sub/**"], set(TREE)),
        (["**/", "!sub/"], {"foo/keep", "foo/x", "foo/d/y", "x/foo/z"}),
        (["*/", "!foo/"], {"sub/a", "sub/b.txt", "foo/d/y", "x/foo/z"}),
        (["[[:alpha:]]"], {"a", "sub/a", "foo/x", "foo/d/y", "x/foo/z"}),
        (["keep", "!keep", "#x", " "], set()),
    ],
)
def test_the_last_pattern_that_matches_decides(
    tmp_path: Path, patterns: list[str], left_out: set[str]
) -> None:
    make(tmp_path, TREE)

    assert kept(tmp_path, patterns) == {name.encode() for name in set(TREE) - left_out}


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a*a*a*/a*a*a*/a*a*a*/b", b"/".join([b"a" * 255] * 3) + b"/c"),
        ("*a" * 1000 + "b", b"a" * 255),
        ("*[ab]?" * 600 + "c", b"a" * 255),
        ("**/a/" * 40 + "b", b"/".join([b"a"] * 2000)),
        ("**/*/" * 40 + "b", b"/".join([b"a"] * 2000)),
    ],
)
def test_no_pattern_takes_long(pattern: str, path: bytes) -> None:
    excludes = Excludes([pattern])

    assert not any(excludes.leaves_out(path, lambda: False) for _ in range(20))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a*b*c", b"abc", True),
        ("a*b*c", b"acbc", True),
        ("a*b*c", b"acb", False),
        ("*ab*ab", b"ab", False),
        ("*ab*ab", b"abab", True),
        ("*ab", b"b", False),
        ("a**b", b"axb", True),
        ("?", b"\xff", True),
        ("[!a]", b"\xff", True),
        ("*", b"a\nb", True),
        ("[[:upper:]]*", b"Ab", True),
        ("[[:upper:]]*", b"ab", False),
        ("[a-c]", b"b", True),
        ("[z-a]", b"b", False),
        ("[\\]]", b"]", True),
        ("[a\\-c]", b"b", False),
        ("[[:]", b":", True),
        ("\udcff*", b"\xffx", True),
    ],
)
def test_a_name_is_matched_byte_by_byte(pattern: str, name: bytes, *, expected: bool) -> None:
    assert Excludes([pattern]).leaves_out(name, lambda: False) is expected
    assert Excludes([pattern]).leaves_out(b"in/" + name, lambda: False) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "[",
        "a[b",
        "[!",
        "[a-",
        "[\\",
        "a\\",
        "[[:none:]]",
        "a\0b",
        "x" * (MAX_PATTERN_CHARS + 1),
        "/".join(["a"] * (MAX_COMPONENTS + 1)),
    ],
)
def test_what_can_never_match_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidError):
        Excludes([pattern])
