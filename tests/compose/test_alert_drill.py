"""A real Prometheus with our rules, and what the processes of tasks send it: their alerts are raised, and no other.

Prometheus before 2.47 takes no OTLP, so a server in here takes it, and Prometheus scrapes that.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from testing.http_client import http
from testing.ports import free_port
from tests.compose.composed_stack import engine
from tests.compose.official_images import official_image
from training.settings import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(600)]

#: One source and one model have stopped a week ago.
TASKS = """
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from unittest import mock

from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
from perennial_airflow import step_metrics

# As the process of a task begins.
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
now = time.time()
failed = SimpleNamespace(state="failed", task=SimpleNamespace(step="train", inputs={"model": "fails"}))
step_metrics.task_failed(failed, None, in_task=True)
step_metrics.step_succeeded("train", {"model": "works"}, {})
step_metrics.step_succeeded("ingest", {"source": "works"}, {})
step_metrics.step_succeeded("drift", {"model": "works"}, {})
step_metrics.delivery_given_up("given_up")
with mock.patch("time.time", lambda: now - 7 * 86_400):
    step_metrics.step_succeeded("ingest", {"source": "stopped"}, {})
    step_metrics.step_succeeded("materialize", {"source": "stopped"}, {})
    step_metrics.step_succeeded("drift", {"model": "stopped"}, {})
old = datetime.fromtimestamp(now - 3 * 86_400, UTC).isoformat()
step_metrics.step_succeeded("request_approval", {"model": "waits"}, {"waiting": {"count": 1, "since": old}})
with mock.patch("shutil.disk_usage", lambda path: mock.Mock(free=1, total=100)):
    step_metrics.step_succeeded("features", {"source": "works"}, {})
"""
RULES = ROOT / "helm" / "perennial" / "files" / "rules"
EXPECTED = {
    ("StepFailed", "fails"),
    ("DeliveryNotTakenIn", "given_up"),
    ("DataOld", "stopped"),
    ("FeaturesOld", "stopped"),
    ("MonitorOld", "stopped"),
    ("ApprovalWaits", "waits"),
    ("DiskAlmostFull", "lake"),
}


class Collector(BaseHTTPRequestHandler):
    """Takes metrics by OTLP, and answers with all gauges in Prometheus' text format, named as Prometheus names them."""

    lines: dict[str, float]

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        request = ExportMetricsServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
        for metric in (metric for scope in scopes for metric in scope.metrics):
            for point in metric.gauge.data_points:
                labels = ",".join(f'{each.key}="{each.value.string_value}"' for each in point.attributes)
                self.lines[f"{metric.name.replace('.', '_')}{{{labels}}}"] = point.as_double or point.as_int
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer("".join(f"{name} {value}\n" for name, value in self.lines.items()).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[str]:
    """The address of a collector."""
    handler = type("Handler", (Collector,), {"lines": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def prometheus(collector: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a Prometheus with Compose's rules, which scrapes the collector alone: a `prometheus` on the PATH, or
    Compose's image."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"] = [{"job_name": "collector", "static_configs": [{"targets": [collector]}]}]
    installed, port = shutil.which("prometheus"), free_port()
    listen = f"--web.listen-address=127.0.0.1:{port}"
    if installed:
        config["rule_files"] = [str(RULES / "*.yaml")]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        place = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
        with subprocess.Popen([installed, *place, listen], stderr=subprocess.DEVNULL) as process:
            yield f"http://127.0.0.1:{port}"
            process.terminate()
        return
    if why := engine():
        pytest.skip(f"No prometheus on the PATH, and no Docker engine: {why}")
    image = official_image("prometheus")
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
        pytest.skip(f"No prometheus on the PATH, and no image {image}: docker pull {image}")
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["docker", "run", "--detach", "--rm", "--network", "host", "--user", "0", "--tmpfs", "/data"]
    for place, path in ((tmp_path, "/etc/prometheus"), (RULES, "/etc/perennial/rules")):
        command += ["-v", f"{place}:{path}:ro"]
    options = ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/data"]
    options += [listen]
    made = subprocess.run([*command, image, *options], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run(["docker", "kill", made.stdout.strip()], capture_output=True)


def raised(prometheus: str) -> set[tuple[str, str]]:
    """The alerts that fire, or will when their cause lasts for minutes, each with what it is about."""
    try:
        alerts = http.get(f"{prometheus}/api/v1/alerts", timeout=5).raise_for_status().json()["data"]["alerts"]
    except Exception:
        return set()  # It has not started yet.
    found = [alert["labels"] for alert in alerts]
    return {(each["alertname"], each.get("source") or each.get("model") or each.get("of", "")) for each in found}


def test_what_tasks_send_raises_their_alerts(prometheus: str, collector: str) -> None:
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}",
        "CT_LAKE_URI": str(ROOT),
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://{collector}/v1/metrics",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
        "NO_PROXY": "127.0.0.1",
    }
    subprocess.run([sys.executable, "-c", TASKS], env=environment, check=True, timeout=300)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and raised(prometheus) != EXPECTED:
        time.sleep(1)
    assert raised(prometheus) == EXPECTED
