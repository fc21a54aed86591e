"""The dashboard and the alert rules ask for metrics that workers and gateways really have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.deploy.shipped import DEPLOY
from tests.deployment import deployed
from tests.gateway.conftest import serving
from tests.ports import free_ports

from holdfast.protocol.table import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast.runtime.embedded import EmbeddedServer

PROMETHEUS: Final = DEPLOY / "prometheus"
DASHBOARD: Final[dict[str, Any]] = json.loads((DEPLOY / "grafana/holdfast.json").read_text())
RULES: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
GRAPHS: Final = [panel for panel in PANELS if panel["type"] != "row"]
QUERIES: Final = [
    *(
        target["expr"].replace("$__rate_interval", "5m")
        for one in GRAPHS
        for target in one["targets"]
    ),
    *(rule["expr"] for rule in RULES),
]
SUFFIXES: Final = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}
ADDED: Final = frozenset({"job", "instance"})
"""Labels that whoever scrapes adds to each metric."""

BELOW: Final = ("lhs", "rhs", "expr", "args", "vector_selector")


def selectors(expression: Any) -> Iterator[Any]:
    """The metrics that a parsed expression looks at, each with its conditions."""
    if isinstance(expression, list):
        for one in expression:
            yield from selectors(one)
    elif isinstance(expression, promql_parser.VectorSelector):
        yield expression
    else:
        for name in BELOW:
            yield from selectors(getattr(expression, name, []))


@pytest.fixture(scope="module")
def exported(nats_server: EmbeddedServer) -> Mapping[str, frozenset[str]]:
    """The labels of each metric that a worker and a gateway show after a few requests.

    A metric of which there is no sample, such as of failures where there were none, has any.
    """
    (port,) = free_ports(1)
    with (
        deployed(nats_server.url, "one", metrics_port=str(port)) as deployment,
        serving(deployment) as url,
    ):
        digest = httpx.put(f"{url}/blobs", content=b"seen", timeout=60).json()["digest"]
        statuses = [
            httpx.get(f"{url}/blobs/{of}", timeout=60).status_code for of in (digest, "0" * 64)
        ]
        assert statuses == [200, 404]
        texts = [
            httpx.get(f"{of}/metrics", timeout=60).text for of in (f"http://127.0.0.1:{port}", url)
        ]
    found: dict[str, frozenset[str]] = {"up": ADDED}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for suffix in SUFFIXES.get(family.type, ("",)):
                found[family.name + suffix] = frozenset()
            for sample in family.samples:
                found[sample.name] = frozenset(sample.labels) | ADDED
    return found


def test_every_expression_looks_at_metrics_that_there_are(
    exported: Mapping[str, frozenset[str]],
) -> None:
    asked = [one for query in QUERIES for one in selectors(promql_parser.parse(query))]

    assert len(asked) >= len(QUERIES)
    assert {one.name for one in asked} - exported.keys() == set()
    odd = {
        (one.name, matcher.name)
        for one in asked
        for matcher in one.matchers.matchers
        if exported[one.name] and matcher.name not in exported[one.name]
    }
    assert odd == set()


def test_a_condition_on_a_subject_is_of_some_that_there_are() -> None:
    subjects = [operation.subject for operation in OPERATIONS]
    asked = {
        matcher.value
        for query in QUERIES
        for one in selectors(promql_parser.parse(query))
        for matcher in one.matchers.matchers
        if matcher.name == "subject"
    }

    assert asked
    for pattern in asked:
        assert any(re.fullmatch(pattern, subject) for subject in subjects)


def test_the_dashboard_shows_all_that_there_is_to_be_seen(
    exported: Mapping[str, frozenset[str]],
) -> None:
    shown = " ".join(QUERIES)

    own = {name for name in exported if name.startswith("holdfast_")}
    stems = {
        name.removesuffix("_count").removesuffix("_sum").removesuffix("_bucket") for name in own
    }
    assert {name for name in stems if name not in shown and not name.endswith("_created")} == set()


def test_the_dashboard_has_the_form_that_grafana_loads() -> None:
    ids = [panel["id"] for panel in PANELS]

    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["title"] == DASHBOARD["uid"] == "holdfast"
    assert len(set(ids)) == len(ids)
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    for panel in GRAPHS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        assert panel["description"]
        assert [target["refId"] for target in panel["targets"]] == sorted(
            {target["refId"] for target in panel["targets"]}
        )


def test_no_panel_covers_another() -> None:
    covered = [
        (x, y)
        for at in (panel["gridPos"] for panel in PANELS)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(set(covered)) == len(covered)
    assert max(x for x, _ in covered) < 24


def test_every_alert_says_what_is_wrong_and_is_tried_in_both_states() -> None:
    (well, ill) = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    names = {rule["alert"] for rule in RULES}

    assert len(names) == len(RULES)
    assert {one["alertname"] for one in well["alert_rule_test"]} == names
    (firing,) = ill["promql_expr_test"]
    assert {one["labels"].split('"')[1] for one in firing["exp_samples"]} == names
    assert all(rule["annotations"]["summary"] for rule in RULES)
    assert {rule["labels"]["severity"] for rule in RULES} == {"warning", "critical"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_the_alerts_as_they_are_said_to_be() -> None:
    tested = ["promtool", "test", "rules", "alerts_test.yml"]

    ran = subprocess.run(tested, cwd=PROMETHEUS, capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr
