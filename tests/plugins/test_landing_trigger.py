"""A real Airflow and a landing folder: every delivery gets exactly one data run, whatever is killed meanwhile."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from testing.http_client import http
from testing.ports import free_port

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parent.parent.parent
AIRFLOW = str(Path(sys.executable).parent / "airflow")


class Airflow:
    """Airflow's four processes on SQLite, each in a session of its own, with a REST client."""

    def __init__(self, home: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.home = home
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        settings = {
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__PARALLELISM": "4",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "API__HOST": "127.0.0.1",
            "API__PORT": self.url.rpartition(":")[2],
            "API__BASE_URL": self.url,
            "API__SECRET_KEY": secrets.token_hex(32),
            "API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
            "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "CT_"))}
        ours = {"AIRFLOW_HOME": str(home), "CT_HOME": str(home / "perennial"), "PYTHONPATH": str(ROOT)}
        self.env = kept | ours | {f"AIRFLOW__{key}": value for key, value in settings.items()}
        (home / "passwords.json").write_text(json.dumps({"admin": "admin"}))

    def start(self, *command: str) -> None:
        log = (self.home / f"{command[0]}.log").open("ab")
        self.processes[command[0]] = subprocess.Popen(
            [AIRFLOW, *command], env=self.env, stdout=log, stderr=log, start_new_session=True
        )

    def kill(self, name: str) -> None:
        """The process and all that it started, at once."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log_in(self) -> None:
        self.until(lambda: self._answers(), 90)
        login = {"username": "admin", "password": "admin"}
        token = http.post(f"{self.url}/auth/token", json=login, timeout=30).json()["access_token"]
        self.api = httpx.Client(base_url=f"{self.url}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return http.get(f"{self.url}/api/v2/version", timeout=5).is_success
        return False

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        found = self.api.get(f"/dags/{dag_id}/dagRuns", params={"limit": 100, "order_by": "start_date"})
        return [] if found.status_code == 404 else found.raise_for_status().json()["dag_runs"]

    def until(self, condition: Callable[[], bool], seconds: float = 400) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s; logs are in {self.home}"
            time.sleep(0.3)


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[Airflow]:
    one = Airflow(tmp_path)
    subprocess.run([AIRFLOW, "db", "migrate"], env=one.env, check=True, capture_output=True)
    one.start("api-server")
    try:
        one.log_in()
        one.start("dag-processor")
        one.start("scheduler", "--skip-serve-logs")
        one.start("triggerer", "--skip-serve-logs")
        yield one
    finally:
        for name in list(one.processes):
            one.kill(name)


def test_every_delivery_gets_exactly_one_run(airflow: Airflow) -> None:
    landing = airflow.home / "perennial" / "landing" / "card_payments"

    def land(name: str, content: str = "not parquet: the run fails, and that is its own affair") -> None:
        path = landing / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}")
        hidden.write_text(content)
        hidden.rename(path)

    def data_runs() -> list[str]:
        return [run["dag_run_id"].rpartition("_")[0] for run in airflow.runs("card_payments_data")]

    def all_done(count: int) -> bool:
        runs = airflow.runs("card_payments_data")
        return len(runs) >= count and all(run["state"] == "failed" for run in runs)

    # Landed before Airflow was there, in no order.
    for name in ("labels/2026-01-06", "events/2026-01-07", "events/2026-01-06", "events/2026-01-01_2026-01-05"):
        land(name)
    airflow.until(lambda: all_done(4), 240)
    expected = ["events_2026-01-01_2026-01-05_1", "events_2026-01-06_1", "labels_2026-01-06_1", "events_2026-01-07_1"]
    assert data_runs() == expected

    # While nobody watches: one is late, one is corrected, one is delivered again as it was.
    airflow.kill("triggerer")
    land("labels/2026-01-05")
    land("events/2026-01-06", "corrected")
    land("events/2026-01-07")
    time.sleep(2)
    airflow.start("triggerer", "--skip-serve-logs")
    airflow.until(lambda: all_done(7))
    expected += ["labels_2026-01-05_1", "events_2026-01-06_2", "events_2026-01-07_2"]
    assert data_runs() == expected

    # The scheduler dies somewhere between the file and the end of its run, again and again.
    for day, seconds in (("08", 2.0), ("09", 3.0), ("10", 4.5)):
        land(f"events/2026-01-{day}")
        time.sleep(seconds)
        airflow.kill("scheduler")
        airflow.start("scheduler", "--skip-serve-logs")
        expected.append(f"events_2026-01-{day}_1")
    airflow.until(lambda: all_done(10), 240)
    time.sleep(5)
    assert data_runs() == expected
