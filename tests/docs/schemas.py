"""Write ``schemas/`` from the messages, or say where it has drifted: ``make schemas``.

Run as ``python -m tests.docs.schemas [--check] DIRECTORY``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from holdfast.gateway.app import all_routes
from holdfast.gateway.meters import Meters
from holdfast.gateway.openapi import openapi_document
from holdfast.gateway.settings import GatewaySettings
from holdfast.protocol.schema.asyncapi import asyncapi_document
from holdfast.protocol.schema.documents import schema_documents, schema_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.client import Client

_OUR_ID: Final = '"$id": "urn:holdfast:wire:'


def generated_files() -> dict[str, str]:
    """File name to text, for everything in ``schemas/``."""
    files = {name: schema_text(document) for name, document in schema_documents().items()}
    files["asyncapi.json"] = schema_text(asyncapi_document())
    files["openapi.json"] = schema_text(_openapi())
    return files


def _openapi() -> dict[str, Any]:
    nobody = cast("Client", None)  # routes ask a client only for a request
    return openapi_document(all_routes(nobody, GatewaySettings(), Meters()))


def find_drift(directory: Path) -> list[str]:
    """Differences of ``directory`` and the messages, a line for each file."""
    files = generated_files()
    drift = [f"{path.name}: no message has this schema" for path in _stale(directory, files)]
    for name, text in files.items():
        path = directory / name
        if not path.is_file():
            drift.append(f"{name}: missing")
        elif path.read_text(encoding="utf-8") != text:
            drift.append(f"{name}: differs from the messages")
    return sorted(drift)


def write_files(directory: Path) -> None:
    """Make ``directory`` hold exactly the generated files, beside what is not holdfast's."""
    files = generated_files()
    directory.mkdir(parents=True, exist_ok=True)
    for path in _stale(directory, files):
        path.unlink()
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 when ``--check`` finds drift."""
    parser = argparse.ArgumentParser(prog="tests.docs.schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; report drift")
    parser.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)

    if not options.check:
        write_files(options.directory)
        return 0
    drift = find_drift(options.directory)
    for line in drift:
        print(line, file=sys.stderr)
    if drift:
        print("run `make schemas`", file=sys.stderr)
    return 1 if drift else 0


def _stale(directory: Path, files: dict[str, str]) -> list[Path]:
    return [
        path
        for path in sorted(directory.glob("*.json"))
        if path.name not in files and _OUR_ID in path.read_text(encoding="utf-8")
    ]


if __name__ == "__main__":
    sys.exit(main())
