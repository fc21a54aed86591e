"""The subjects beside those of operations, and those that may be replied to."""

from __future__ import annotations

import re
from typing import Final

from holdfast.domain.names import token
from holdfast.protocol.blobs import PUT_PART
from holdfast.protocol.states import APPEND_COMMANDS

PROGRESS_SUBJECT: Final = "snapshot.progress"
"""Before the id of a snapshot or restore: where its progress is published."""

MAX_REPLY_CHARS: Final = 512


def prefixed(prefix: str, subject: str) -> str:
    """``subject`` as it is in the deployment of that ``prefix``, which may be empty."""
    return f"{prefix}.{subject}" if prefix else subject


def part_subject(prefix: str, worker_id: str, upload: str) -> str:
    """Where worker ``worker_id`` takes the parts of ``upload``."""
    return prefixed(prefix, f"{PUT_PART.subject}.{worker_id}.{upload}")


def append_subject(worker_id: str, body: str) -> str:
    """Where worker ``worker_id`` takes appends whose ``body`` is ``json`` or ``bytes``.

    Without the deployment's prefix.
    """
    return f"{APPEND_COMMANDS.subject}.{worker_id}.{body}"


def node_subject(prefix: str, node: str, subject: str) -> str:
    """Where the workers of ``node`` take what others forward.

    Requests for ``snapshot.create`` go on as ``snapshot.on.<node>.create``, the node's name being
    escaped like any name in a subject. For workers only: nothing there is not asked for elsewhere.
    """
    family, _, verb = subject.partition(".")
    return prefixed(prefix, f"{family}.on.{token(node)}.{verb}")


def reply_pattern(inbox_prefixes: tuple[str, ...]) -> re.Pattern[str]:
    """Subjects under one of ``inbox_prefixes`` (each ending in a dot), without wildcards.

    Tokens are of printable ASCII: what else the server lets through came here as it was not sent.
    """
    heads = "|".join(re.escape(prefix) for prefix in inbox_prefixes)
    word = r"[!-)+\-,/-=?-~]+"  # of these all but . * and >
    return re.compile(rf"(?=.{{1,{MAX_REPLY_CHARS}}}$)(?:{heads}){word}(?:\.{word})*")
