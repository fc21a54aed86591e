"""The examples of the documents work, and their tables say what the code says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.docs.tables import ADVICE, DECISIONS, ROOT, TABLES, anchor_of, headings, split_at_table

from holdfast.errors import ERRORS
from holdfast.runtime.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

README: Final = ROOT / "README.md"
README_BYTES: Final = 9 * 1024
TEXT: Final = README.read_text(encoding="utf-8")
DOCUMENTS: Final = (
    README,
    ROOT / "ARCHITECTURE.md",
    ROOT / "CHANGELOG.md",
    ROOT / "deploy" / "README.md",
    ROOT / "tests" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
DEFAULT_URL: Final = "nats://127.0.0.1:4222"
RUN_SECONDS: Final = 180
READY_SECONDS: Final = 30


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks in ``language`` of a document."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


PYTHON: Final = {
    f"{document.stem}-{number}": block
    for document in DOCUMENTS
    for number, block in enumerate(blocks(document, "python"), start=1)
}
SHELL: Final = [block for block in blocks(README, "sh") if f"NATS_URL={DEFAULT_URL}" in block]


def decisions_named(code: str) -> list[str]:
    """The titles of decisions that a module names behind the path of the document."""
    text = re.sub(r"\s+", " ", code)
    named = re.findall(r'docs/decisions\.md, ((?:"[^"]+",? ?(?:and )?)+)', text)
    assert len(named) == text.count("docs/decisions.md"), "name the decision in quotes"
    titles = [title for some in named for title in re.findall(r'"([^"]+)"', some)]
    return [title.replace("``", "`") for title in titles]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server of these tests alone: the examples use subjects without a prefix."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("nats-server")) as server:
        yield server.url


@pytest.fixture(scope="module")
def environment(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a reader's terminal while a worker serves."""
    scripts = str(Path(sys.executable).parent)
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NATS_", "HOLDFAST_"))
    } | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("no-config")),
    }
    command = (sys.executable, "-m", "holdfast")
    at_server = ("--server", url)
    subprocess.run([*command, "admin", "init", *at_server], env=variables, check=True)
    worker = subprocess.Popen([*command, "worker", *at_server], env=variables)
    try:
        deadline = time.monotonic() + READY_SECONDS
        status = [*command, "status", *at_server]
        while subprocess.run(status, env=variables, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, "the worker does not serve"
            time.sleep(0.05)
        yield variables
    finally:
        worker.terminate()
        assert worker.wait(60) == 0


def run(
    command: list[str], program: str, environment: dict[str, str], url: str, directory: Path
) -> str:
    """The output of ``program``, told the server's ``url``. Fails if it does."""
    assert DEFAULT_URL in program
    ended = subprocess.run(
        [*command, program.replace(DEFAULT_URL, url)],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.nats
@pytest.mark.parametrize("example", PYTHON)
def test_the_examples_in_python_run(
    example: str, environment: dict[str, str], url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-W", "error", "-c"]

    written = run(command, PYTHON[example], environment, url, tmp_path)

    assert written


@pytest.mark.nats
@pytest.mark.parametrize("number", range(len(SHELL)))
def test_the_examples_in_the_shell_run(
    number: int, environment: dict[str, str], url: str, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text(TEXT, encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("page", encoding="utf-8")

    written = run(["sh", "-euc"], SHELL[number], environment, url, tmp_path)

    assert "\nhello\n" in written
    assert "README.md" in written
    assert "\ndocs:" in written
    assert (tmp_path / "docs-copy/page.md").read_text(encoding="utf-8") == "page"


def test_there_are_examples_to_run() -> None:
    assert {
        "README-1",
        "clients-1",
        "clients-2",
        "clients-3",
        "names-1",
        "snapshots-1",
        "states-1",
        "states-2",
    } <= PYTHON.keys()
    assert len(SHELL) == 1


def test_the_readme_is_short() -> None:
    assert len(TEXT.encode()) <= README_BYTES


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_the_code_says(name: str) -> None:
    document, build = TABLES[name]

    _, found, _ = split_at_table(document.read_text(encoding="utf-8"), name)

    assert found == build(), "run python -m tests.docs.tables"


def test_every_error_is_listed_with_what_to_do_about_it() -> None:
    assert list(ADVICE) == [error.code for error in ERRORS]
    assert all(sentence.endswith(".") for sentence in ADVICE.values())


def test_no_two_decisions_have_one_anchor() -> None:
    found = [anchor_of(title) for _, title in headings(DECISIONS.read_text(encoding="utf-8"))]

    assert sorted(set(found)) == sorted(found)


def test_the_code_names_decisions_that_are_there() -> None:
    titles = {title for _, title in headings(DECISIONS.read_text(encoding="utf-8"))}
    named = [
        (module.name, title)
        for module in (ROOT / "service").rglob("*.py")
        for title in decisions_named(module.read_text(encoding="utf-8"))
    ]

    assert len(named) > 100
    assert [(module, title) for module, title in named if title not in titles] == []


def test_what_make_is_told_to_do_it_can() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))

    named = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", TEXT, re.MULTILINE))
    elsewhere = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"`make ([a-z0-9-]+)", document.read_text(encoding="utf-8"))
    }

    assert {"run", "test", "check"} <= named <= targets
    assert elsewhere <= targets


def test_the_architecture_names_files_that_are_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")

    named = re.findall(r"`([\w.-]+/[\w./-]*)`", text)

    assert len(named) > 30
    assert [
        path
        for path in named
        if not (ROOT / path).exists() and not (ROOT / "service/holdfast" / path).exists()
    ] == []
    beside = set(re.findall(r"`([\w-]+\.py)`", text))
    assert beside - {module.name for module in (ROOT / "service").rglob("*.py")} == set()


def test_the_architecture_names_limits_where_they_are() -> None:
    """Each name in capitals is that of a module which the same line names."""
    modules = list((ROOT / "service").rglob("*.py"))
    lines = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()
    named = [
        (name, re.findall(r"`(?:[\w.-]+/)*([\w-]+\.py)`", line))
        for line in lines
        for name in re.findall(r"`(_?[A-Z][A-Z_]+)`", line)
    ]

    def has(module: Path, name: str) -> bool:
        code = module.read_text(encoding="utf-8")
        return re.search(rf"^{name}\b.* = ", code, re.MULTILINE) is not None

    assert len(named) > 30
    assert [
        name
        for name, where in named
        if not any(module.name in where and has(module, name) for module in modules)
    ] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))

    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            titles = headings(target.read_text(encoding="utf-8"))
            assert anchor in {anchor_of(title) for _, title in titles}, link
