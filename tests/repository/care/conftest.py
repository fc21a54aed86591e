"""Deployments of each kind, as those that collectors are tried on."""

from __future__ import annotations

from tests.repository.collector.conftest import deployed as deployed
