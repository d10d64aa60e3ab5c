"""One loop on one machine without Airflow, whose processes get SIGKILL: steps, MLflow, the prediction service.

Every step is a process. One that was killed, or ended with 75, is started again with the same inputs, as a scheduler
does. MLflow and the service are kept running, as a supervisor does: one that has ended is started again at once.
"""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from local.traffic import as_json
from testing.http_client import http
from testing.loop_steps import HISTORY, MODEL, SOURCE, run_loop, small_generator, write_spec
from testing.serving_stack import Process, Service, mlflow_server, service_process
from testing.step_process import StepProcess
from testing.waiting import eventually
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, Registry
from training.contract.errors import ExitCode
from training.contract.steps import step_command
from training.settings import ROOT, Settings

TABLES = ("events", "labels", "customer_features", "terminal_features")
#: Tries of a step that end with 75, before it is said not to converge. Those that were killed do not count.
TRIES = 12
#: What names an entry's time, a random id, a commit that has either, or the folder of a loop.
_BY_CHANCE = {"began", "at", "since", "run_id", "artifact_uri", "uri", "dataset_uri", "replicas", "seconds", "commit"}
_BY_CHANCE |= {"report_html", "report_json"}
#: Requests of one round of traffic, events of each, and the pause between two in seconds.
_ROUNDS, _REQUESTS, _EVENTS, _PAUSE = 3, 20, 25, 0.1
#: Answers of this many seconds before a kill may be missing in the log (serving/prediction_log.py, on a busy machine).
_LOSS_SECONDS = 1.0


class DidNotConverge(Exception):
    """A step failed for good, or the loop ended in another state."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL, `after` seconds, for the process of `target` that `which` chooses: 0 is the first, almost 1 the last."""

    after: float
    target: str
    which: float


#: Called before each try of a step, or round of traffic, with its name.
Plan = Callable[[str], Kill | None]


class Keeper:
    """Starts `processes` again when they have ended, until `stop`."""

    def __init__(self, *processes: Process) -> None:
        self._processes, self._ended = processes, threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        for each in self._processes:
            each.start()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        for each in self._processes:
            each.stop()

    def _keep(self) -> None:
        while not self._ended.wait(0.05):
            for each in self._processes:
                if each.process is not None and each.process.poll() is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(each.process.pid, signal.SIGKILL)  # What it left would keep its port.
                    each.start()


class ChaosLoop:
    """One loop in `folder`, whose processes are killed as `plan` says. `say` gets a line for each kill."""

    def __init__(self, folder: Path, plan: Plan, say: Callable[[str], None] = print) -> None:
        self.folder, self._plan, self._say = folder, plan, say
        self.home = folder / "home"
        #: Of each undisturbed step and round of traffic.
        self.seconds: dict[str, float] = {}
        self._mlflow = mlflow_server(folder)
        # One stage, whose replica may take its time: after a timeout the move would be undone, and another one begun.
        models = write_spec(folder / "models", rollout={"timeout_seconds": 300, "stages": [{"mode": "full"}]})
        self._settings = Settings(
            home=self.home, tracking_uri=self._mlflow.url, models_dir=models, serving_models=MODEL
        )
        self._service: Service = service_process(self._settings)
        self._keeper = Keeper(self._mlflow, self._service)
        #: Event → when its answer came (time.time).
        self._answered: dict[int, float] = {}
        self._service_killed: list[float] = []
        self._generator = small_generator()

    def run(self) -> dict[str, Any]:
        """Run the loop to a champion that serves. Returns the state at its end, to be compared with that of another.

        It has no numbers of table versions. A step that is killed after its commit writes the same rows once more when
        it runs again, as a write replaces what it covers.
        """
        self._keeper.start()
        try:
            eventually(self._mlflow.answers)
            self._loop()
            return self._state()
        finally:
            self._keeper.stop()

    def _loop(self) -> None:
        run_loop(self._step, self.home / "landing")
        for number in range(_ROUNDS):
            self._traffic(number)

    def _step(self, name: str, **inputs: Any) -> dict[str, Any]:
        """The result of the step, started again until it succeeds."""
        report, log = self.folder / "report.json", self.folder / f"{name}.log"
        failed = tries = 0
        while failed < TRIES:
            report.unlink(missing_ok=True)
            began, tries = time.monotonic(), tries + 1
            process = StepProcess(step_command(name, inputs, str(report)), self._environment(), log)
            killed = self._kill(f"{name}, try {tries}", name, process)
            code = process.wait(300)
            if code == 0:
                if not killed:
                    self.seconds[name] = time.monotonic() - began
                result: dict[str, Any] = json.loads(report.read_text())["result"]
                return result
            if code not in (-signal.SIGKILL, ExitCode.TRANSIENT):
                raise DidNotConverge(f"{name} ended with {code}. Its log:\n{log.read_text()[-3000:]}")
            if code == ExitCode.TRANSIENT:
                failed += 1
                time.sleep(failed)
        raise DidNotConverge(f"{name} did not succeed in {TRIES} tries. Its log:\n{log.read_text()[-3000:]}")

    def _traffic(self, number: int) -> None:
        """Send events to the service, each once. The kill meanwhile is never one of a step."""
        events = self._generator.events(HISTORY.end + timedelta(days=number))
        rows = [as_json(row) for row in events.slice(0, _REQUESTS * _EVENTS).to_pylist()]
        began = time.monotonic()
        client = threading.Thread(target=self._send, args=(rows,), daemon=True)
        client.start()
        if not self._kill(f"traffic {number}", "traffic", client):
            client.join(300)
            self.seconds["traffic"] = time.monotonic() - began
        client.join(300)

    def _send(self, rows: list[dict[str, Any]]) -> None:
        for at in range(0, len(rows), _EVENTS):
            batch = rows[at : at + _EVENTS]
            url = f"{self._service.url}/models/{MODEL}/predict_batch"
            with contextlib.suppress(httpx.HTTPError):
                if http.post(url, json=batch, timeout=30).is_success:
                    self._answered |= dict.fromkeys((row["transaction_id"] for row in batch), time.time())
            time.sleep(_PAUSE)

    def _kill(self, where: str, activity: str, running: StepProcess | threading.Thread) -> bool:
        """Do what the plan says for `activity`, while it is `running`. Whether there was a kill in the plan."""
        planned = self._plan(activity)
        if planned is None:
            return False
        began = time.monotonic()
        while running.is_alive() and time.monotonic() - began < planned.after:
            time.sleep(0.002)
        if not running.is_alive():
            return True
        if planned.target == "step" and isinstance(running, StepProcess):
            pid, what = running.pid, "step"
            running.kill()
        else:
            pid, what = self._kill_server("mlflow" if planned.target == "mlflow" else "serving", planned.which)
        self._say(f"kill of {what} (pid {pid}), {time.monotonic() - began:.3f} s into {where}")
        return True

    def _kill_server(self, name: str, which: float) -> tuple[int, str]:
        """Kill one process of the server, its first or one that this has started. Returns the pid and what it is."""
        server = self._mlflow if name == "mlflow" else self._service
        assert server.process is not None
        pids = [server.process.pid]
        with contextlib.suppress(psutil.NoSuchProcess):
            pids += [child.pid for child in psutil.Process(pids[0]).children(recursive=True)]
        pid = pids[int(which * len(pids))]
        if name == "serving":
            self._service_killed.append(time.time())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return pid, f"{name}, process {pids.index(pid) + 1} of {len(pids)}"

    def _environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CT_")}
        ours = {"CT_HOME": str(self.home), "CT_TRACKING_URI": self._mlflow.url, "PYTHONPATH": str(ROOT)}
        ours |= {"CT_MODELS_DIR": str(self._settings.models_dir), "CT_SERVING_URLS": self._service.url}
        return clean | ours

    def _state(self) -> dict[str, Any]:
        time.sleep(1)  # A child of a process that was killed may answer until the keeper ends it.
        eventually(self._mlflow.answers)
        eventually(self._service.ready)
        eventually(lambda: not [path for path in self._spooled() if path.stat().st_size])
        lake, ledger = Lake(str(self.home / "lake"), SOURCE, MODEL), Ledger(self._settings.ledger)
        registry = Registry(self._mlflow.url)
        champion = registry.by_alias(MODEL, CHAMPION)
        predictions = lake.scan(PREDICTIONS).to_table()
        served = pc.is_in(predictions["event"].combine_chunks().field("transaction_id"), self._sent())
        return {
            "lake": {table: sorted_rows(lake.scan(table).to_table()) for table in TABLES},
            "predictions in batch": _answers(predictions.filter(pc.invert(served))),
            "problems of served predictions": self._problems(predictions.filter(served)),
            "ledger": ledger_content(ledger),
            "ledger problems": ledger_problems(ledger),
            "champion": champion and (champion.version, champion.digest),
            "served": (models := self._service.models()) and models.champion and models.champion.version,
            "versions": [version.version for version in registry.versions(MODEL)],
            "parts of files": unfinished(self.home),
        }

    def _spooled(self) -> list[Path]:
        return [path for path in Path(self._settings.serving).rglob("*") if path.suffix in (".open", ".jsonl")]

    def _sent(self) -> pa.Array:
        """The events of all rounds of traffic."""
        days = [HISTORY.end + timedelta(days=number) for number in range(_ROUNDS)]
        return pa.concat_tables([self._generator.events(day) for day in days])["transaction_id"].combine_chunks()

    def _problems(self, served: pa.Table) -> list[str]:
        """What is wrong with the predictions that the service has logged."""
        found = served["event"].combine_chunks().field("transaction_id").to_pylist()
        doubled = sorted({each for each in found if found.count(each) > 1}) if len(found) > len(set(found)) else []
        logged = set(found)
        lost = [
            event
            for event, at in self._answered.items()
            if event not in logged and not any(0 <= kill - at < _LOSS_SECONDS for kill in self._service_killed)
        ]
        problems = {"logged twice": doubled, "answered and not logged": lost}
        return [f"{what}: {events[:10]}" for what, events in problems.items() if events]


def ledger_content(ledger: Ledger) -> list[tuple[str, Any]]:
    """Kind and body of each entry. The keys of some name the ids of tables, which are random."""
    return [(entry.kind, lasting(entry.body)) for entry in ledger.entries(MODEL)]


def ledger_problems(ledger: Ledger) -> list[str]:
    keys = [(entry.kind, entry.key) for entry in ledger.entries(MODEL)]
    return [*ledger.problems(MODEL), *(f"twice: {key}" for key in sorted({key for key in keys if keys.count(key) > 1}))]


def sorted_rows(table: pa.Table) -> list[dict[str, Any]]:
    return table.sort_by([(name, "ascending") for name in sorted(table.column_names)]).to_pylist()


def _answers(predictions: pa.Table) -> list[tuple[int, str, int, str]]:
    columns = ("role", "model_version", "outputs")
    rows = predictions.select(["event", *columns]).to_pylist()
    return sorted((row["event"]["transaction_id"], *(str(row[name]) for name in columns)) for row in rows)


def unfinished(home: Path) -> list[str]:
    """Commits of the lake that were not finished."""
    return sorted(str(path.relative_to(home)) for path in (home / "lake").rglob("*.tmp"))


def lasting(body: Any) -> Any:
    """What does not change from one run to the next."""
    if isinstance(body, dict):
        return {name: lasting(value) for name, value in body.items() if name not in _BY_CHANCE}
    return [lasting(each) for each in body] if isinstance(body, list) else body
