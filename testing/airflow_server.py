"""A real Airflow of its own: four processes, a database, and a REST client."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from testing.http_client import http
from testing.ports import free_port

ROOT = Path(__file__).parent.parent
AIRFLOW = str(Path(sys.executable).parent / "airflow")


class AirflowServer:
    """Airflow's processes, each in a session of its own. Its state is under `home`, and so are their logs.

    `environment` is added to theirs. `database` is an SQLAlchemy URL; the default is a file of SQLite.
    """

    def __init__(self, home: Path, database: str = "", environment: Mapping[str, str] | None = None) -> None:
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
            "DATABASE__SQL_ALCHEMY_CONN": database or f"sqlite:///{home}/airflow.db",
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
        self.env = kept | ours | {f"AIRFLOW__{key}": value for key, value in settings.items()} | dict(environment or {})
        (home / "passwords.json").write_text(json.dumps({"admin": "admin"}))

    def run_no_steps(self) -> None:
        """Use testing/no_op_launcher.py. It joins as a package outside the repository does."""
        folder = self.home / "launcher"
        metadata = folder / "no_op_launcher-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: no-op-launcher\nVersion: 1.0\n")
        point = "no_op = testing.no_op_launcher:NoOpOperator"
        (metadata / "entry_points.txt").write_text(f"[perennial.launcher]\n{point}\n")
        self.env |= {"CT_LAUNCHER": "no_op", "PYTHONPATH": f"{self.env['PYTHONPATH']}{os.pathsep}{folder}"}

    @contextmanager
    def running(self, *, triggerer: bool = True) -> Iterator["AirflowServer"]:
        """All processes, healthy or not; killed at the end."""
        subprocess.run([AIRFLOW, "db", "migrate"], env=self.env, check=True, capture_output=True)
        self.start("api-server")
        try:
            self.log_in()
            self.start("dag-processor")
            self.start("scheduler", "--skip-serve-logs")
            if triggerer:
                self.start("triggerer", "--skip-serve-logs")
            yield self
        finally:
            for name in list(self.processes):
                self.kill(name)

    def start(self, *command: str, name: str = "") -> None:
        """`name`: of the process; by default the first word of `command`."""
        name = name or command[0]
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [AIRFLOW, *command], env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """The process and all that it started, at once."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log_in(self) -> None:
        self.until(self._answers, 900)
        login = {"username": "admin", "password": "admin"}
        token = http.post(f"{self.url}/auth/token", json=login, timeout=30).json()["access_token"]
        self.api = httpx.Client(base_url=f"{self.url}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return http.get(f"{self.url}/api/v2/version", timeout=5).is_success
        return False

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The runs of a DAG, oldest first; none when there is no such DAG yet."""
        found = self.api.get(f"/dags/{dag_id}/dagRuns", params={"limit": 100, "order_by": "start_date"})
        return [] if found.status_code == 404 else found.raise_for_status().json()["dag_runs"]

    def until(self, condition: Callable[[], bool], seconds: float = 900) -> None:
        """Return when `condition` holds. Raises AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s; logs are in {self.home}"
            time.sleep(0.3)
