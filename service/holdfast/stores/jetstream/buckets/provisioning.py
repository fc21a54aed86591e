"""Making the buckets. Only an operator's command does this, never a worker that misses one.

A bucket that was found missing may be on its way back (a stream may be *not found* for
seconds after a majority was wiped); creating it then would lose what it held.

A setting that a store's URL omits is left out of a stream's: it is made with the default, and left
as it is where it is found. A limit is changed at once; how many copies there are, and
where, is only told, for changing that moves data and has a command of its own (``replication``).

Why: docs/decisions.md, "Init sets limits, and ``admin replicas`` moves data".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast.domain.store_state import Layout, differences
from holdfast.errors import ConflictError, NotFoundError, UnavailableError
from holdfast.stores.jetstream.buckets.check import DUPLICATE_WINDOW_NS, unfit
from holdfast.stores.jetstream.buckets.readiness import TOO_FEW_SERVERS, NotReadyError, ask_api
from holdfast.stores.jetstream.buckets.replication import bucket_state, placement_of
from holdfast.transport.jetstream_messages import ApiRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.transport.jetstream import JetStream

_HEADERS: Final = {"allow_rollup_hdrs": True, "allow_msg_ttl": True, "allow_atomic": True}
_DEFAULTS: Final = {"num_replicas": 1, "max_bytes": -1}
_CHANGEABLE: Final = (
    "allow_direct",
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "allow_atomic",
    "discard",
    "max_bytes",
)


@dataclass(frozen=True, slots=True)
class Buckets:
    """The buckets of one deployment.

    ``blobs`` and ``packs`` hold objects, ``records``, ``snapshots`` and ``names`` are KV, and
    ``states`` holds logs.
    """

    blobs: str
    packs: str
    records: str
    snapshots: str
    names: str
    states: str

    @property
    def of_objects(self) -> tuple[str, ...]:
        """Those that hold objects."""
        return self.blobs, self.packs

    @property
    def of_records(self) -> tuple[str, ...]:
        """Those that are KV."""
        return self.records, self.snapshots, self.names

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams behind them."""
        return (
            *(f"OBJ_{name}" for name in self.of_objects),
            *(f"KV_{name}" for name in self.of_records),
            f"HF_{self.states}",
        )


def bucket_names(bucket: str, prefix: str) -> Buckets:
    """The buckets' names. ``prefix`` is the deployment's token; it may be empty."""
    head = f"{prefix}_" if prefix else ""
    own = "" if bucket == "blobs" else f"{bucket}-"
    return Buckets(
        blobs=f"{head}{bucket}",
        packs=f"{head}{own}packs",
        records=f"{head}holdfast",
        snapshots=f"{head}{own}snapshots",
        names=f"{head}{own}names",
        states=f"{head}{own}states",
    )


def object_stream(bucket: str, layout: Layout) -> dict[str, Any]:
    """The stream behind an object store bucket (ADR-20)."""
    return {
        **_common(layout),
        **_limit(layout.max_bytes),
        **_HEADERS,
        "name": f"OBJ_{bucket}",
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "max_msgs_per_subject": -1,
    }


def record_stream(bucket: str, layout: Layout) -> dict[str, Any]:
    """The stream behind a KV bucket (ADR-8) with a history of one."""
    return {
        **_common(layout),
        **_HEADERS,
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "max_msgs_per_subject": 1,
        "deny_delete": True,
        "subject_delete_marker_ttl": 0,
    }


def log_stream(bucket: str, layout: Layout) -> dict[str, Any]:
    """The stream behind logs. No publish can remove entries of it."""
    return {
        **_common(layout),
        **_limit(layout.states_max_bytes),
        "name": f"HF_{bucket}",
        "subjects": [f"$HF.{bucket}.>"],
        "max_msgs_per_subject": -1,
        "deny_delete": True,
        "allow_rollup_hdrs": False,
        "allow_atomic": False,
    }


def _limit(max_bytes: int | None) -> dict[str, int]:
    return {} if max_bytes is None else {"max_bytes": max_bytes}


def _common(layout: Layout) -> dict[str, Any]:
    stated: dict[str, Any] = {}
    if layout.replicas is not None:
        stated["num_replicas"] = layout.replicas
    if layout.tags or layout.cluster is not None:
        stated["placement"] = placement_of(layout)
    return {
        **stated,
        "retention": "limits",
        "storage": layout.storage,
        "discard": "new",
        "max_age": 0,
        "max_msgs": -1,
        "max_consumers": -1,
        "max_msg_size": -1,
        "duplicate_window": DUPLICATE_WINDOW_NS,
        "allow_direct": True,
    }


async def ensure_stream(js: JetStream, wanted: Mapping[str, Any]) -> str:
    """Create the stream, or see that the one that is there fits; a sentence about it.

    Raises ConflictError when it differs in what cannot be changed, NotReadyError (no leader, too
    few servers so far, no answer, in which case it may have been made), UnavailableError.
    """
    name = wanted["name"]
    try:
        found = await ask_api(js, f"STREAM.INFO.{name}")
    except NotFoundError:
        settings = {**_DEFAULTS, **wanted}
        try:
            await ask_api(js, f"STREAM.CREATE.{name}", settings)
        except ApiRefusedError as refused:
            raise _refusal(refused, f"create {name}") from refused
        return f"created {name} with {settings['num_replicas']} replica(s)"
    present = found["config"]
    stated = [field for field in _CHANGEABLE if field in wanted]
    changes = {one: wanted[one] for one in stated if present.get(one, False) != wanted[one]}
    _check_fits({**present, **changes}, wanted)
    said = f"found {name} with {present['num_replicas']} replica(s)"
    if changes:
        _check_limit(found, changes)
        try:
            await ask_api(js, f"STREAM.UPDATE.{name}", {**present, **changes})
        except ApiRefusedError as refused:
            raise _refusal(refused, f"change {name}") from refused
        said = f"changed {name}: {', '.join(sorted(changes))}"
    left = list(differences(bucket_state(found), _moved_by_others(wanted)))
    return "; ".join([said, *left])


def _check_fits(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Whether a worker would serve on ``config``, which has the changes made here already."""
    name, found, needed = wanted["name"], config["storage"], wanted["storage"]
    fault = unfit(config)
    if fault is None and found != needed:
        fault = f"storage={found!r}: {needed!r} is needed"
    if fault is not None:
        raise ConflictError(f"{name} is there with {fault}")


def _check_limit(found: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """A limit below the stored bytes would stop every write, deletions among them."""
    limit, stored = changes.get("max_bytes", -1), found["state"]["bytes"]
    if 0 <= limit < stored:
        msg = f"{found['config']['name']} holds {stored} bytes: max_bytes={limit} is less than that"
        raise ConflictError(msg)


def _moved_by_others(wanted: Mapping[str, Any]) -> Layout:
    """The part of ``wanted`` not changed here."""
    where = wanted.get("placement", {})
    return Layout(
        storage=wanted["storage"],
        replicas=wanted.get("num_replicas"),
        tags=tuple(where.get("tags", ())),
        cluster=where.get("cluster"),
    )


def _refusal(refused: ApiRefusedError, what: str) -> UnavailableError:
    kind = NotReadyError if refused.err_code in TOO_FEW_SERVERS else UnavailableError
    return kind(f"the server refused to {what}: {refused.detail}")
