"""The whole stack on one machine: starts its programs in order, reports their health, stops them."""

import socket
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil

from local.credentials import Credentials
from local.place import Place
from local.processes import BIN, STEPS, environment, programs
from local.program import members
from local.supervisor import UNREACHABLE, Supervisor
from training.contract.errors import StepError

#: Airflow's programs without a port. They start when the API server answers, because their tasks call it.
WORKING = ("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
Report = Callable[[str], None]


class StackStoppedError(Exception):
    """Somebody stopped the stack while it started."""


class Stack:
    """One stack in one place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.supervisor = Supervisor(place)

    @property
    def credentials(self) -> Credentials:
        return Credentials.kept_in(self.place.home)

    @property
    def running(self) -> bool:
        return self.supervisor.running

    def start(self, report: Report, patience: float = 180) -> None:
        """Start the programs that do not run yet and return when all are healthy. `report` gets the progress.

        `patience` is the time limit per program, in seconds. Raises StepError that names the program and its log, and
        StackStoppedError when somebody else stops the stack meanwhile.
        """
        place, credentials = self.place, self.credentials
        place.make_private()
        for folder in (place.landing, place.home / "mlflow", place.airflow_home, place.run, place.logs):
            folder.mkdir(parents=True, exist_ok=True)
        credentials.write_passwords_file(place.airflow_home / "passwords.json")
        try:
            self._start(credentials, report, patience)
        except (StepError, *UNREACHABLE):
            if self.supervisor.stopped:
                raise StackStoppedError from None
            raise

    def _start(self, credentials: Credentials, report: Report, patience: float) -> None:
        place = self.place
        if not self.running:
            started = programs(place)
            self.supervisor.boot(started, {each.name: environment(place, credentials, each.name) for each in started})
            place.remember()
        report("MLflow, the step server and Airflow's database")
        self.supervisor.start("mlflow", STEPS)
        self._migrate(environment(place, credentials, "airflow-api"))
        report("Airflow's API server and the prediction service")
        self.supervisor.start("airflow-api", "serving")
        self._wait("airflow-api", patience)
        # The API server makes its API for tasks at the first request of it, which takes 2 s.
        answers_at(f"{place.airflow_url}/execution/health")
        report("Airflow's scheduler, DAG processor and triggerer")
        self.supervisor.start(*WORKING)
        for program in self.health():
            self._wait(program, patience)

    def stop(self) -> None:
        """Stop all programs. No process is left."""
        self.supervisor.shutdown()

    def health(self) -> dict[str, bool]:
        """Program → whether it answers. For those without a port: whether Airflow gets their heartbeat."""
        place = self.place
        answers = {
            "mlflow": answers_at(f"{place.mlflow_url}/health"),
            "serving": answers_at(f"{place.serving_url}/livez"),
            "airflow-api": answers_at(f"{place.airflow_url}/api/v2/version"),
        }
        if any(program.name == STEPS for program in programs(place)):
            answers[STEPS] = _listens(place.step_server)
        parts = {}
        if answers["airflow-api"]:
            try:
                parts = httpx.get(f"{place.airflow_url}/api/v2/monitor/health", timeout=10).json()
            except (httpx.HTTPError, ValueError):
                parts = {}
        for program in WORKING:
            part = parts.get(program.removeprefix("airflow-").replace("-", "_"), {})
            answers[program] = part.get("status") == "healthy"
        return answers

    def memory(self) -> int:
        """Memory of all processes of the stack in bytes (PSS, which counts a shared page once)."""
        total = 0
        for process in members(str(self.place.home)):
            try:
                total += process.memory_full_info().pss
            except (psutil.Error, AttributeError):
                continue
        return total

    def _migrate(self, env: dict[str, str]) -> None:
        """Migrate Airflow's database. That takes 9 s, so it is done once per version of Airflow."""
        done = self.place.airflow_home / "migrated"
        release = version("apache-airflow")
        if done.exists() and done.read_text() == release:
            return
        log = self.place.logs / "airflow-db.log"
        with log.open("w") as file:
            code = subprocess.run([str(BIN / "airflow"), "db", "migrate"], env=env, stdout=file, stderr=file).returncode
        if code:
            raise StepError("Airflow's database could not be migrated", hint=f"See {log}.")
        done.write_text(release)

    def _wait(self, program: str, patience: float) -> None:
        deadline = time.monotonic() + patience
        while not self.health()[program]:
            state = next((s.state for s in self.supervisor.states() if s.name == program), "gone")
            if self.supervisor.stopped:
                raise StackStoppedError
            if state in ("FATAL", "gone") or time.monotonic() > deadline:
                what = "keeps failing" if state in ("FATAL", "gone") else f"is not healthy after {patience:.0f} s"
                log = self.place.logs / f"{program}.log"
                raise StepError(f"{program} {what} ({state}). Its log ends:\n{tail(log)}", hint=f"See {log}.")
            time.sleep(0.5)


def tail(log: object, lines: int = 12) -> str:
    """The last lines of a log, indented."""
    try:
        with open(str(log), errors="replace") as file:
            return "\n".join(f"    {line.rstrip()}" for line in file.readlines()[-lines:])
    except OSError:
        return "    (no log)"


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def answers_at(url: str) -> bool:
    """Whether a GET of `url` succeeds within 5 s."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False
