"""``schemas/`` follows the messages: it is written from them, and drift is found and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.docs.schemas import find_drift, generated_files, main

from holdfast.protocol.schema.asyncapi import asyncapi_document

SCHEMAS = Path(__file__).parent.parent.parent / "schemas"


def test_the_files_in_the_repository_are_what_the_messages_give() -> None:
    assert find_drift(SCHEMAS) == []


def test_the_asyncapi_file_reads_as_the_document() -> None:
    text = (SCHEMAS / "asyncapi.json").read_text(encoding="utf-8")

    assert json.loads(text) == asyncapi_document()


def test_what_was_written_has_no_drift(tmp_path: Path) -> None:
    assert main([str(tmp_path / "new")]) == 0

    assert main(["--check", str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == generated_files().keys()


def test_drift_is_named_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tmp_path)])
    (tmp_path / "blob.put.reply.json").unlink()
    (tmp_path / "problem.json").write_text("{}")
    stale = '{"$id": "urn:holdfast:wire:1:blob.gone:reply"}'
    (tmp_path / "blob.gone.reply.json").write_text(stale)

    status = main(["--check", str(tmp_path)])

    assert status == 1
    assert capsys.readouterr().err.splitlines() == [
        "blob.gone.reply.json: no message has this schema",
        "blob.put.reply.json: missing",
        "problem.json: differs from the messages",
        "run `make schemas`",
    ]
    assert (tmp_path / "problem.json").read_text() == "{}"
    assert (tmp_path / "blob.gone.reply.json").exists()


def test_writing_mends_drift_and_leaves_the_files_of_others(tmp_path: Path) -> None:
    main([str(tmp_path)])
    (tmp_path / "problem.json").write_text("{}")
    stale = '{"$id": "urn:holdfast:wire:1:blob.gone:reply"}'
    (tmp_path / "blob.gone.reply.json").write_text(stale)
    (tmp_path / "package.json").write_text("{}")

    main([str(tmp_path)])

    assert find_drift(tmp_path) == []
    assert not (tmp_path / "blob.gone.reply.json").exists()
    assert (tmp_path / "package.json").read_text() == "{}"
