"""Alerts, dashboard and docs/monitoring.md speak of metrics that the operator has, in PromQL that a real parser reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import Metric

from chart import CHART, RELEASE, ROOT, Manifest, of_kind, render, the
from finetune_operator.api import conditions
from finetune_operator.api.status import FineTuneJobStatus, Progress
from finetune_operator.shell.metrics import Metrics
from finetune_operator.shell.queue import Key

ALERTS = [
    rule for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
# What a scrape adds to every series, and the bucket's own.
SCRAPE_LABELS = {"instance", "job", "le"}
ALL_ON = "metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true"


@cache
def metrics() -> list[Metric]:
    """All metrics of an operator that has seen something of everything."""
    made = Metrics(lambda: 1, lambda _: 1.0)
    made.posts.labels("200").inc()
    speed = {"tokens_per_second": "17221", "share_of_limit": "49%", "data_wait_share": "0.1%"}
    progress = Progress(step=1, total_steps=2, **speed)
    training = {"type": "Ready", "status": "False", "reason": "Training", "lastTransitionTime": "2026-11-22T03:00:00Z"}
    status = FineTuneJobStatus.model_validate({"conditions": [training]}).model_copy(update={"progress": progress})
    made.observe(Key("team", "a"), FineTuneJobStatus(), status)
    return list(made.registry.collect())


def series() -> dict[str, set[str]]:
    """Labels of every series by its name."""
    return {sample.name: set(sample.labels) for metric in metrics() for sample in metric.samples}


def panel_queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def selectors(expression: Any) -> Iterator[promql_parser.VectorSelector]:
    """Every selection of series in a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "args"):
        below = getattr(expression, name, None)
        for child in below if isinstance(below, list) else [below]:
            if child is not None:
                yield from selectors(child)


QUERIES = [*(rule["expr"] for rule in ALERTS), *panel_queries()]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_selects_series_and_labels_that_the_operator_shows(query: str) -> None:
    found = list(selectors(promql_parser.parse(query)))
    assert found
    for selector in found:
        assert selector.name in series()
        assert {matcher.name for matcher in selector.matchers.matchers} <= series()[selector.name]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_groups_by_labels_that_its_series_have(query: str) -> None:
    shown = set().union(*(series()[selector.name] for selector in selectors(promql_parser.parse(query))))
    grouped = {
        label.strip() for group in re.findall(r"(?:by|on|group_left) ?\(([^)]*)\)", query) for label in group.split(",")
    }
    assert grouped - {""} <= shown | SCRAPE_LABELS


def test_a_query_of_a_metric_that_is_not_there_would_be_found() -> None:
    assert [
        selector.name for selector in selectors(promql_parser.parse("sum(rate(finetune_nonsense_total[5m])) / 2"))
    ] == ["finetune_nonsense_total"]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_with_labels_that_its_query_leaves(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert {"summary", "description"} == rule["annotations"].keys()
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    kept = re.search(r"^(?:sum|max) by \(([^)]*)\)", rule["expr"])
    shown = set().union(*(series()[selector.name] for selector in selectors(promql_parser.parse(rule["expr"]))))
    assert used <= ({label.strip() for label in kept[1].split(",")} if kept else shown)


def test_an_alert_asks_for_stages_that_a_job_can_be_in() -> None:
    asked = {stage for rule in ALERTS for stage in re.findall(r'stage="(\w+)"', rule["expr"])}
    stages = {value for name, value in vars(conditions).items() if name.isupper()}
    assert asked
    assert asked <= stages


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_the_page_says_under_the_name_of_an_alert_what_to_do(rule: dict[str, Any]) -> None:
    _, heading, text = PAGE.partition(f"\n### {rule['alert']}\n")
    assert heading, f"add the heading `### {rule['alert']}` to docs/monitoring.md"
    assert "kubectl" in text.partition("\n### ")[0]


def test_the_page_has_no_alert_that_is_gone() -> None:
    headings = re.findall(r"^### (FineTune\w+)$", PAGE, re.MULTILINE)
    assert headings == [rule["alert"] for rule in ALERTS]


def table() -> str:
    """The table of docs/monitoring.md."""
    rows = ["| metric | type | labels | what it is |", "|---|---|---|---|"]
    for metric in sorted(metrics(), key=lambda metric: metric.name):
        if metric.name.startswith("finetune_"):
            labels = sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
            suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
            shown = ", ".join(f"`{label}`" for label in labels)
            rows.append(f"| `{metric.name}{suffix}` | {metric.type} | {shown} | {metric.documentation} |")
    return "\n".join(rows)


def test_the_page_lists_every_metric_as_the_operator_describes_it() -> None:
    assert table() in PAGE, f"put this table into docs/monitoring.md:\n{table()}"


def test_nothing_for_prometheus_or_grafana_is_made_unless_it_is_asked_for() -> None:
    assert {"ServiceMonitor", "PrometheusRule"}.isdisjoint(manifest["kind"] for manifest in render())


@pytest.fixture(scope="module")
def monitored() -> list[Manifest]:
    return render("--set", ALL_ON)


def test_the_monitor_scrapes_the_port_of_the_service_that_shows_metrics(monitored: list[Manifest]) -> None:
    spec, [service] = the(monitored, "ServiceMonitor")["spec"], of_kind(monitored, "Service")
    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = spec["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert (endpoint["path"], endpoint["interval"], endpoint["honorLabels"]) == ("/metrics", "30s", True)


def test_every_alert_is_in_the_rule_and_leads_to_its_page(monitored: list[Manifest]) -> None:
    rules = [rule for group in the(monitored, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    links = {rule["alert"]: rule["annotations"].pop("runbook_url") for rule in rules}
    assert rules == ALERTS
    assert links == {name: f"docs/monitoring.md#{name.lower()}" for name in links}


def test_the_dashboard_arrives_whole_and_where_grafanas_sidecar_looks(monitored: list[Manifest]) -> None:
    config = the(monitored, "ConfigMap", f"{RELEASE}-dashboard")
    assert json.loads(config["data"]["finetune-operator.json"]) == DASHBOARD
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_panels_of_the_dashboard_do_not_overlap_and_have_titles_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)
