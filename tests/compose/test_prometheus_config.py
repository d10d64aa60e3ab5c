"""The dashboard, the alert rules and Prometheus' configuration, by Prometheus' own tools and against our metrics."""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from serving.metrics import Metrics
from tests.compose.composed_stack import engine
from tests.compose.official_images import official_image
from training.settings import ROOT

FILES = ROOT / "helm" / "perennial" / "files"
DASHBOARD = json.loads((FILES / "dashboards" / "perennial.json").read_text())
RULES = yaml.safe_load((FILES / "rules" / "perennial.yaml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
#: Of the dashboard alone, in PromQL that Prometheus understands.
QUERIES = [
    target["expr"].replace("$__rate_interval", "1m").replace("$model", "card_fraud")
    for panel in PANELS
    for target in panel["targets"]
]


def promtool(*arguments: str, folder: Path = ROOT) -> str:
    """Prometheus' tool from the PATH or its image, run in the repository; it may read `folder` too."""
    command = ["promtool"]
    if shutil.which("promtool") is None:
        if why := engine():
            pytest.skip(f"No promtool on the PATH, and no Docker engine: {why}")
        image = official_image("prometheus")
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
            pytest.skip(f"No promtool on the PATH, and no image {image}: docker pull {image}")
        mounts = [each for place in {ROOT, folder} for each in ("-v", f"{place}:{place}:ro")]
        command = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            *mounts,
            "-w",
            str(ROOT),
            "--entrypoint",
            "promtool",
            image,
        ]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.docker
def test_every_alert_fires_past_its_threshold_and_not_before() -> None:
    promtool("test", "rules", "tests/compose/rules.yaml")
    tested = yaml.safe_load((ROOT / "tests" / "compose" / "rules.yaml").read_text())["tests"]
    cases = [case for test in tested for case in test["alert_rule_test"]]
    for fires in (True, False):
        found = {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires}
        assert found == {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}


def test_every_alert_has_a_runbook() -> None:
    """A row of the table in docs/operations.md: the alert, what it says, what to do."""
    rows = [line.split("|") for line in (ROOT / "docs" / "operations.md").read_text().splitlines()]
    told = {name: row[3].strip() for row in rows if len(row) == 5 for name in re.findall(r"`(\w+)`", row[1])}
    missing = {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if not told.get(rule["alert"])}
    assert not missing


@pytest.mark.docker
def test_prometheus_takes_the_rules_and_the_dashboards_queries(tmp_path: Path) -> None:
    promtool("check", "rules", "helm/perennial/files/rules/perennial.yaml")
    rules = [{"record": f"panel:{at}", "expr": query} for at, query in enumerate(QUERIES)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    path.chmod(0o644)
    assert f"{len(QUERIES)} rules found" in promtool("check", "rules", str(path), folder=tmp_path)


def test_every_metric_that_is_asked_for_is_one_that_serving_has() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    known = {f"{family.name}{ending}" for family in registry.collect() for ending in suffixes[family.type]}
    asked = " ".join([*QUERIES, *(rule["expr"] for group in RULES["groups"] for rule in group["rules"])])
    assert set(re.findall(r"\bperennial_\w+", asked)) - known == set()


def test_every_alert_and_every_panel_of_serving_is_by_model() -> None:
    tested = yaml.safe_load((ROOT / "tests" / "compose" / "rules.yaml").read_text())["tests"]
    alerts = [
        (case["alertname"], each) for test in tested for case in test["alert_rule_test"] for each in case["exp_alerts"]
    ]
    without = {name for name, alert in alerts if "model" not in alert["exp_labels"]}
    [group] = [group for group in RULES["groups"] if group["name"] == "perennial-steps"]
    steps = {rule["alert"] for rule in group["rules"]}
    assert without - steps == {"PredictionServiceDown"}
    of_serving = [target for panel in PANELS for target in panel["targets"] if "perennial_" in target["expr"]]
    assert [t["expr"] for t in of_serving if "{{model}}" not in t["legendFormat"]] == []
    assert [t["expr"] for t in of_serving if t["expr"].count("perennial_") != t["expr"].count('model=~"$model"')] == []


def test_the_dashboard_is_whole() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]+)", json.dumps(DASHBOARD))) <= variables
    for panel in PANELS:
        assert panel["targets"], panel["title"]
        assert panel["description"], panel["title"]
    places = sorted((p["gridPos"]["y"], p["gridPos"]["x"], p["gridPos"]["w"]) for p in PANELS)
    for (y, x, width), (below, beside, _) in pairwise(places):
        assert y != below or x + width <= beside, "two panels lie on each other"


def test_grafana_finds_its_data_source_and_its_dashboards() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    mounts = {mount.split(":")[1]: ROOT / mount.split(":")[0] for mount in services["grafana"]["volumes"]}
    source = yaml.safe_load((ROOT / "deploy/grafana/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((ROOT / "deploy/grafana/dashboards/perennial.yaml").read_text())["providers"][0]
    assert (mounts[Path(provider["options"]["path"]).as_posix()] / "perennial.json").is_file()
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/perennial.json"
