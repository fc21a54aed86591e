"""The tables of ``docs/`` that say what the code says, computed from the code.

``python -m tests.docs.tables`` writes them into their documents, each between its two markers; the
test beside this module fails when one differs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from cyclopts import Parameter

from holdfast.cli.base.exit_codes import exit_code_of
from holdfast.cli.base.settings import WorkerFlags
from holdfast.domain import limits
from holdfast.domain.blob_names import MAX_BLOB_NAME_BYTES, MAX_LABELS_BYTES
from holdfast.errors import ERRORS
from holdfast.gateway.settings import GatewaySettings, setting_variable
from holdfast.protocol.operation import AnyOperation, Body
from holdfast.protocol.schema.documents import sides
from holdfast.protocol.table import OPERATIONS
from holdfast.runtime.config import SETTINGS, Config, flag_of, variable_of
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
REFERENCE: Final = ROOT / "docs/reference.md"
HTTP: Final = ROOT / "docs/http.md"
DECISIONS: Final = ROOT / "docs/decisions.md"

_UNITS: Final = (
    (limits.TIB, "TiB"),
    (limits.GIB, "GiB"),
    (limits.MIB, "MiB"),
    (limits.KIB, "KiB"),
)


def operations_table() -> str:
    """Every subject, with what it is for and the fields of its two messages."""
    rows = [
        (
            f"`{operation.subject}`" + ("" if operation.queue else " (below)"),
            operation.summary,
            _side(operation, "request"),
            _side(operation, "reply"),
        )
        for operation in OPERATIONS
    ]
    return table(("subject", "", "request", "reply"), rows)


def _side(operation: AnyOperation, side: str) -> str:
    kind, body = next((kind, body) for name, kind, body in sides(operation) if name == side)
    names = ", ".join(f"`{name}`" for name in kind.__struct_encode_fields__)
    return f"the bytes; {names}" if body is Body.BYTES else names


def configuration_table() -> str:
    """Every setting: key of the file, variable, default, meaning."""
    keys = [*(f"nats.{name}" for name in NatsOptions.__struct_fields__), *SETTINGS]
    rows = [
        (
            f"`{key}`",
            f"`{variable}`" if (variable := variable_of(key)) else "",
            _default(key),
            _meaning(key),
        )
        for key in keys
    ]
    return table(("key", "variable", "default", ""), rows)


def _default(key: str) -> str:
    if key == "node":
        return "the host name"
    name = key.removeprefix("nats.")
    return _shown(key, getattr(NatsOptions() if key != name else Config(), name))


def _shown(key: str, value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    if key.endswith("_bytes"):
        return size(value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _meaning(key: str) -> str:
    annotation = get_type_hints(WorkerFlags, include_extras=True)[flag_of(key).replace("-", "_")]
    helps = [note.help for note in annotation.__metadata__ if isinstance(note, Parameter)]
    return next(text for text in helps if text)


ADVICE: Final = {
    "invalid": "Change the request: `detail` says what is wrong with it. Nothing was stored.",
    "forbidden": "Fix the credentials or the permissions.",
    "not_found": "It is surely not there; a store that cannot be reached never says so.",
    "conflict": (
        "For an upload: ask `blob.resume`. For a name: `version` is what it has. Otherwise look at"
        " what is there now."
    ),
    "too_large": "Stream it with `blob.open`, or ask for less at once.",
    "rate_limited": "Nothing was done. Wait a little, and repeat; add workers if it stays so.",
    "internal": "A bug. The worker's log has all of it; please report it.",
    "corrupt": (
        "Stored bytes are damaged, and were not served. See [operations](operations.md#damage)."
    ),
    "unavailable": ("Surely not applied: repeat. If it stays so, `detail` says what is missing."),
    "outcome_unknown": "May have been applied: repeat with the same `Op-Id`, or read.",
    "quota_exceeded": (
        "The store is full, and nothing was stored. Delete blobs or raise its limit."
    ),
}


def gateway_table() -> str:
    """Every setting of a gateway: name, variable, default, meaning."""
    types = get_type_hints(GatewaySettings, include_extras=True)
    rows = [
        (
            f"`{name}`",
            f"`{setting_variable(name)}`",
            _shown(name, getattr(GatewaySettings(), name)),
            next(note.description for note in types[name].__metadata__ if note.description),
        )
        for name in GatewaySettings.__struct_fields__
    ]
    return table(("setting", "variable", "default", ""), rows)


def errors_table() -> str:
    """Every error: its code, whether to repeat, the command's exit status, what to do about it."""
    rows = [
        (
            f"`{error.code}`",
            str(error.status),
            "yes" if error.retryable else "no",
            str(exit_code_of(error())),
            ADVICE[error.code],
        )
        for error in ERRORS
    ]
    return table(("code", "status", "repeat", "exit", "what to do"), rows)


def limits_table() -> str:
    """The limits of the wire, for a server with the usual ``max_payload``."""
    payload = limits.MIB
    rows = [
        ("bytes of a blob", size(limits.MAX_BLOB_BYTES)),
        (
            "bytes in one `blob.put`, or in the one message that answers a `blob.get`",
            f"`max_payload` less 64 KiB: {size(limits.max_inline_bytes(payload))} as nats-server"
            " comes",
        ),
        ("bytes of a part", size(limits.part_bytes(payload))),
        ("bytes of one download window", size(limits.WINDOW_BYTES)),
        ("bytes of an upload that are not acknowledged", size(limits.UPLOAD_WINDOW_BYTES)),
        ("blobs in one `blob.put_many`, with as many bytes", f"{limits.MAX_BLOBS_PER_PUT:,}"),
        ("digests in one `blob.has`", f"{limits.MAX_DIGESTS_PER_HAS:,}"),
        ("blobs in one page of `blob.list`", f"{limits.MAX_LIST_LIMIT:,}"),
        ("names and prefixes in one page of `blob.names`", f"{limits.MAX_LIST_LIMIT:,}"),
        ("bytes of a name (UTF-8)", str(MAX_BLOB_NAME_BYTES)),
        (
            "labels of a name, and bytes of all of them",
            f"{limits.MAX_LABELS}, {size(MAX_LABELS_BYTES)}",
        ),
        ("watches of one worker", f"{limits.MAX_WATCHES:,}"),
        ("characters of an `Op-Id`", str(limits.MAX_OP_ID_CHARS)),
        ("characters of a `Blob-Type`", str(limits.MAX_TYPE_CHARS)),
    ]
    return table(("what", "at most"), rows)


def size(count: int) -> str:
    """A number of bytes in the largest unit that divides it."""
    return next(f"{count // unit} {name}" for unit, name in _UNITS if count % unit == 0)


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', r'\|') for cell in line)} |\n" for line in lines
    )


def contents() -> str:
    """The headings of ``docs/decisions.md`` below its title, as a list of links."""
    found = headings(DECISIONS.read_text(encoding="utf-8"))
    return "".join(
        f"{'  ' * (level - 2)}- [{title}](#{anchor_of(title)})\n"
        for level, title in found
        if level > 1
    )


def headings(text: str) -> list[tuple[int, str]]:
    """The headings of a document, in order, each with its level from 1."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [(len(m[1]), m[2]) for m in re.finditer(r"^(#+) (.+)$", outside, re.MULTILINE)]


def anchor_of(title: str) -> str:
    """The part after ``#`` of a link to the heading ``title``."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


TABLES: Final = {
    "operations": (REFERENCE, operations_table),
    "configuration": (REFERENCE, configuration_table),
    "gateway": (HTTP, gateway_table),
    "errors": (REFERENCE, errors_table),
    "limits": (REFERENCE, limits_table),
    "contents": (DECISIONS, contents),
}


def split_at_table(text: str, name: str) -> tuple[str, str, str]:
    """``text`` before, between and after the markers of the table ``name``."""
    start = text.index(f"<!-- table: {name} -->\n")
    start = text.index("\n", start) + 1
    end = text.index("<!-- end -->", start)
    return text[:start], text[start:end], text[end:]


def update() -> None:
    """Write every table into its place."""
    for name, (document, build) in TABLES.items():
        before, _, after = split_at_table(document.read_text(encoding="utf-8"), name)
        document.write_text(before + build() + after, encoding="utf-8")


if __name__ == "__main__":
    update()
