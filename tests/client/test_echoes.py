"""An answer to another request is not taken for one's own."""

from __future__ import annotations

import pytest

from holdfast.client.echoes import check_echo
from holdfast.errors import CorruptError
from holdfast.protocol.blobs import BlobStored, OpenUpload, PutBlob, ResumeUpload, UploadState
from holdfast.protocol.message import Reply, Request
from holdfast.protocol.snapshots import (
    CommitSnapshot,
    CreateSnapshot,
    RestoreRecord,
    RestoreSnapshot,
    SnapshotRecord,
)

KEY = "blog:019f0000-0000-7000-8000-000000000000"
OTHER_KEY = "blog:019f0000-0000-7000-8000-000000000001"
A, B = "a" * 64, "b" * 64


def record(**fields: object) -> SnapshotRecord:
    known = {"key": KEY, "app": "blog", "state": "ok", "created_at": "2026-01-01T00:00:00Z"}
    return SnapshotRecord(**(known | fields))  # type: ignore[arg-type]  # fields of the record


def restored(**fields: object) -> RestoreRecord:
    known = {"key": KEY, "app": "blog", "state": "ok", "created_at": "2026-01-01T00:00:00Z"}
    made = {"restore": KEY.partition(":")[2], "mode": "new"}
    return RestoreRecord(**(known | made | fields))  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (PutBlob(digest=A), BlobStored(digest=B, size=1, created=True)),
        (OpenUpload(digest=A), UploadState(digest=B, size=1, created=False)),
        (OpenUpload(digest=A, size=2), UploadState(digest=A, size=1, created=False)),
        (ResumeUpload(upload="u" * 22), UploadState(upload="v" * 22)),
        (CreateSnapshot(app="wiki"), record()),
        (CreateSnapshot(app="blog", labels={"why": "upgrade"}), record()),
        (RestoreSnapshot(key=OTHER_KEY), restored()),
        (RestoreSnapshot(key=KEY, app="copy"), restored()),
        (RestoreSnapshot(key=KEY, mode="merge"), restored()),
        (CommitSnapshot(key=KEY, digest=A), record(digest=B)),
    ],
)
def test_an_answer_that_tells_of_something_else_is_refused(request_: Request, reply: Reply) -> None:
    with pytest.raises(CorruptError, match="another request"):
        check_echo(request_, reply)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (PutBlob(), BlobStored(digest=B, size=1, created=True)),
        (OpenUpload(digest=A, size=2), UploadState(upload="u" * 22, next_part=0)),
        (CreateSnapshot(app="blog", node="n"), record(node="n")),
        (RestoreSnapshot(key=KEY), restored()),
        (CommitSnapshot(key=KEY, digest=A), record(state="pending", digest=B)),
    ],
)
def test_what_either_leaves_open_is_not_compared(request_: Request, reply: Reply) -> None:
    check_echo(request_, reply)
