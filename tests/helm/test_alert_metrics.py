"""Every metric of the alert rules exists on a cluster: something sends it, and the release has it scraped."""

import multiprocessing
import os
import re
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from serving.metrics import Metrics
from tests.helm.chart import APART, CHART, HELM, NAMESPACE, PRODUCTION, Manifest, merged, named, of_kind, render
from tests.helm.conftest import EVERYTHING
from training.settings import ROOT

AIRFLOW: dict[str, Any] = yaml.safe_load((HELM / "airflow-values.yaml").read_text())
RULES: dict[str, Any] = yaml.safe_load((CHART / "files" / "rules" / "perennial.yaml").read_text())
#: PromQL's own words in our rules.
WORDS = {"and", "or", "unless", "on", "by", "max", "min", "sum", "rate", "increase", "time", "histogram_quantile"}
WORDS |= {"max_over_time", "min_over_time", "last_over_time"}
#: What Prometheus and the kubelet have by themselves.
CLUSTERS = {"up", "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}
#: The Service of the exporter in chart 1.22 (templates/statsd/statsd-service.yaml), for a release called airflow.
EXPORTER = {"name": "airflow-statsd", "labels": {"tier": "airflow", "component": "statsd", "release": "airflow"}}
EXPORTER_PORTS = {"statsd-ingest": 9125, "statsd-scrape": 9102}


def _tell(environment: dict[str, str]) -> None:
    """All that the process of a task can tell, and what the scheduler tells of one that was killed."""
    os.environ.update(environment)
    from airflow.observability.metrics import stats_utils as server_utils
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils
    from perennial_airflow import step_metrics
    from perennial_airflow.compat.airflow_stats import server_stats

    # As the process of a task begins, and the scheduler.
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
    server_stats.initialize(factory=server_utils.get_stats_factory(), export_legacy_names=False)
    for step, inputs, in_task in (("train", {"model": "m"}, True), ("ingest", {"source": "s"}, False)):
        task = SimpleNamespace(step=step, inputs=inputs)
        step_metrics.task_failed(SimpleNamespace(state="failed", task=task), None, in_task)
    step_metrics.step_succeeded("ingest", {"source": "s"}, {})
    step_metrics.step_succeeded("drift", {"model": "m"}, {"outcome": "measured", "drifted": True, "drifted_share": 0.5})
    step_metrics.step_succeeded("performance", {"model": "m"}, {"outcome": "measured", "degraded": True})
    waiting = {"count": 1, "since": "2026-03-02T09:00:00Z"}
    step_metrics.step_succeeded("request_approval", {"model": "m"}, {"waiting": waiting})
    step_metrics.delivery_given_up("s")


def _metrics(expression: str) -> set[str]:
    """The metrics that a query reads."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on)\s*\([^)]*\)", " ", expression)
    return set(re.findall(r"\b[a-z][a-z0-9_]*\b", bare)) - WORDS


def _asked() -> set[str]:
    return {name for group in RULES["groups"] for rule in group["rules"] for name in _metrics(rule["expr"])}


def _of_serving() -> set[str]:
    registry = CollectorRegistry()
    Metrics(registry)
    endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    return {f"{family.name}{ending}" for family in registry.collect() for ending in endings[family.type]}


@pytest.fixture(scope="module")
def sent() -> dict[str, dict[str, str]]:
    """What a task sends with the configuration of airflow-values.yaml: name → labels, as the exporter shows them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exporter:
        exporter.bind(("127.0.0.1", 0))
        exporter.settimeout(1)
        metrics = {**AIRFLOW["config"]["metrics"], "statsd_host": "127.0.0.1", "statsd_port": exporter.getsockname()[1]}
        environment = {f"AIRFLOW__METRICS__{name.upper()}": str(value) for name, value in metrics.items()}
        # Forked: this process has imported Airflow, which takes 3 s of CPU.
        process = multiprocessing.get_context("fork").Process(
            target=_tell, args=(environment | {"CT_LAKE_URI": str(ROOT)},), daemon=True
        )
        process.start()
        process.join(120)
        assert process.exitcode == 0
        found: dict[str, dict[str, str]] = {}
        while True:
            try:
                line = exporter.recv(65_536).decode()
            except TimeoutError:
                return found
            # Airflow's own are for dashboards.
            if line.startswith("airflow.perennial."):
                name, labels = _shown(line)
                found.setdefault(name, {}).update(labels)


def _shown(line: str) -> tuple[str, dict[str, str]]:
    """As the exporter shows a line of StatsD: labels from its tags, the name by the first mapping that fits."""
    stat, *tags = line.rpartition(":")[0].split(",")
    assert line.endswith("|g"), f"{line} is no gauge"
    for mapping in AIRFLOW["statsd"]["extraMappings"]:
        pattern = re.escape(mapping["match"]).replace(r"\*", r"([^.]*)")
        if fits := re.fullmatch(pattern, stat):
            name = re.sub(r"\$\{(\d)\}", lambda number: fits[int(number[1])], mapping["name"])
            return name, dict(tag.split("=", 1) for tag in tags)
    raise AssertionError(f"{stat} has no mapping, so no end: it would be shown until the exporter restarts")


def test_every_metric_of_the_alerts_is_produced_on_a_cluster(sent: dict[str, dict[str, str]]) -> None:
    asked = _asked()
    assert {"up", "perennial_champion_version", "airflow_perennial_step_failed"} <= asked
    assert asked - _of_serving() - set(sent) - CLUSTERS == set()


def test_what_tasks_send_has_the_labels_that_alerts_ask_for(sent: dict[str, dict[str, str]]) -> None:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            for labels, name in re.findall(r"by \(([\w, ]+)\) \(last_over_time\((airflow_\w+)", rule["expr"]):
                assert set(labels.split(", ")) <= sent[name].keys(), rule["alert"]


def test_the_exporter_shows_a_value_for_some_scrapes_and_not_for_ever(everything: list[Manifest]) -> None:
    """The alerts look back for their own time: one on a delivery ends after a day."""
    interval = named(everything, "ServiceMonitor", "perennial-airflow")["spec"]["endpoints"][0]["interval"]
    for mapping in AIRFLOW["statsd"]["extraMappings"]:
        assert 3 * int(interval.removesuffix("s")) < 60 * int(mapping["ttl"].removesuffix("m")) <= 600


def test_airflow_sends_to_its_charts_exporter() -> None:
    assert AIRFLOW["statsd"]["enabled"] is True
    assert AIRFLOW["config"]["metrics"]["statsd_host"] == EXPORTER["name"]
    assert AIRFLOW["config"]["metrics"]["statsd_port"] == EXPORTER_PORTS["statsd-ingest"]


@pytest.mark.parametrize(("more", "namespaces"), [({}, [NAMESPACE]), (APART, ["airflow"])], ids=["trial", "apart"])
def test_the_exporter_is_scraped_where_airflow_is(more: dict[str, Any], namespaces: list[str]) -> None:
    monitor = named(render(merged(PRODUCTION, EVERYTHING, more)), "ServiceMonitor", "perennial-airflow")["spec"]
    assert monitor["namespaceSelector"] == {"matchNames": namespaces}
    assert monitor["selector"]["matchLabels"].items() <= EXPORTER["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= EXPORTER_PORTS.keys()


def test_prometheus_may_reach_the_exporter() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert AIRFLOW["statsd"]["extraNetworkPolicies"] == values["networkPolicy"]["prometheus"]


def test_alerts_that_are_deployed_have_their_metrics_scraped() -> None:
    """In the values of production: rules without monitors would never fire."""
    production = yaml.safe_load((HELM / "gitops" / "production" / "perennial.yaml").read_text())
    kinds = {manifest["kind"] for manifest in of_kind(render(production), "ServiceMonitor", "PrometheusRule")}
    assert kinds == {"ServiceMonitor", "PrometheusRule"}
