"""The agreement of a deployment's collectors, which stands in the deployment's record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.stores.deployment import FORMAT, Deployment

if TYPE_CHECKING:
    from datetime import datetime


def why_off(terms: Deployment, now: datetime) -> str | None:
    """Why nothing is collected at the time ``now`` by the store's clock; None: it is."""
    if terms.format != FORMAT:
        return (
            "workers of an older version may be at work; once there are none,"
            " `holdfast admin upgrade` lets collection begin"
        )
    if terms.collects_from is not None and now < terms.collects_from:
        return f"collection begins at {terms.collects_from.isoformat()}"
    return None
