"""Making the buckets. Only an operator's command does this, never a worker that misses one.

A bucket that was found missing may be on its way back (a stream may be *not found* for
seconds after a majority was wiped); creating it then would lose what it held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import ConflictError, NotFoundError, UnavailableError
from holdfast.transport.jetstream_messages import ApiRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.stores.location import BucketLocation
    from holdfast.transport.jetstream import JetStream

DUPLICATE_WINDOW_NS: Final = 120 * 10**9
_SETTLED: Final = ("storage", "max_age", "max_msgs", "retention", "sealed")
_CHANGEABLE: Final = (
    "allow_direct",
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "allow_atomic",
    "discard",
)


@dataclass(frozen=True, slots=True)
class Buckets:
    """The buckets of one deployment.

    ``blobs`` and ``packs`` hold objects; ``records`` and ``snapshots`` are KV.
    """

    blobs: str
    packs: str
    records: str
    snapshots: str


def bucket_names(bucket: str, prefix: str) -> Buckets:
    """What they are called. ``prefix`` is the deployment's token; it may be empty."""
    head = f"{prefix}_" if prefix else ""
    own = "" if bucket == "blobs" else f"{bucket}-"
    return Buckets(
        blobs=f"{head}{bucket}",
        packs=f"{head}{own}packs",
        records=f"{head}holdfast",
        snapshots=f"{head}{own}snapshots",
    )


def object_stream(bucket: str, location: BucketLocation) -> dict[str, Any]:
    """The stream behind an object store bucket (ADR-20)."""
    return {
        **_common(location),
        "name": f"OBJ_{bucket}",
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "max_bytes": location.max_bytes,
        "max_msgs_per_subject": -1,
    }


def record_stream(bucket: str, location: BucketLocation) -> dict[str, Any]:
    """The stream behind a KV bucket (ADR-8) with a history of one."""
    return {
        **_common(location),
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "max_bytes": -1,
        "max_msgs_per_subject": 1,
        "deny_delete": True,
        "subject_delete_marker_ttl": 0,
    }


def _common(location: BucketLocation) -> dict[str, Any]:
    return {
        "retention": "limits",
        "storage": location.storage,
        "num_replicas": location.replicas,
        "discard": "new",
        "max_age": 0,
        "max_msgs": -1,
        "max_consumers": -1,
        "max_msg_size": -1,
        "duplicate_window": DUPLICATE_WINDOW_NS,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
    }


async def ensure_stream(js: JetStream, wanted: Mapping[str, Any]) -> str:
    """Create the stream, or see that the one that is there fits; a sentence about it.

    Raises ConflictError when it differs in what cannot be changed, UnavailableError.
    """
    name = wanted["name"]
    try:
        present = (await js.api(f"STREAM.INFO.{name}"))["config"]
    except NotFoundError:
        try:
            await js.api(f"STREAM.CREATE.{name}", wanted)
        except ApiRefusedError as refused:
            msg = f"the server refused to create {name}: {refused.detail}"
            raise UnavailableError(msg) from refused
        return f"created {name} with {wanted['num_replicas']} replica(s)"
    for field in _SETTLED:
        if present.get(field, wanted.get(field)) != wanted.get(field, present.get(field)):
            found, needed = present.get(field), wanted.get(field)
            msg = f"{name} is there with {field}={found!r}: {needed!r} is needed"
            raise ConflictError(msg)
    changes = {f: wanted[f] for f in _CHANGEABLE if present.get(f, False) != wanted[f]}
    if not changes:
        return f"found {name} with {present['num_replicas']} replica(s)"
    try:
        await js.api(f"STREAM.UPDATE.{name}", {**present, **changes})
    except ApiRefusedError as refused:
        msg = f"the server refused to change {name}: {refused.detail}"
        raise UnavailableError(msg) from refused
    return f"changed {name}: {', '.join(sorted(changes))}"
