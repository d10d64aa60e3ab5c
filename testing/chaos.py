"""`python -m testing.chaos [--kills 50] [--seed 0]`: kills programs of a loop with SIGKILL at random moments.

The loop is that of one machine without Airflow: every step is a process, MLflow is a server with an SQLite file. A step
that was killed, or ended with 75, is started again with the same inputs, as a scheduler does; a server that was killed
is started again at once, as the supervisor does. The loop is run once without a kill and then as often as it takes for
all kills, each time in a new folder. Every time it must end with the same lake, ledger and champion as without.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from local.generator import Generator
from local.landing import land_table
from testing.ports import free_port
from testing.serving_stack import MlflowServer, eventually
from testing.step_process import StepProcess
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, Registry
from training.contract.base import Days
from training.contract.errors import ExitCode
from training.contract.steps import step_command
from training.settings import ROOT

SOURCE, MODEL, START, DAYS = "card_payments", "card_fraud", date(2026, 1, 5), 42
TABLES = ("events", "labels", "customer_features", "terminal_features")
#: Tries of a step that end with 75, before it is said not to converge. Those that were killed do not count.
TRIES = 10
#: What names an entry's time or a random id.
_BY_CHANCE = {"began", "at", "run_id", "artifact_uri", "uri", "dataset_uri"}
#: Called before a process is waited for, with its step: the seconds after which to kill what, or None.
Plan = Callable[[str], tuple[float, str] | None]


class DidNotConverge(Exception):
    """A step failed for good, or the loop ended in another state."""


class ChaosLoop:
    """One loop in `folder`, whose processes are killed as `plan` says."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self._plan = folder, plan
        self.home = folder / "home"
        self.seconds: dict[str, float] = {}
        #: Kills that came after the step had ended.
        self.missed = 0
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._mlflow = MlflowServer(command, os.environ | quiet, folder / "mlflow.log", url=self.url)
        self._models = _batch_model(folder)

    def run(self) -> dict[str, Any]:
        """Run the loop to a champion. Returns the state at its end, to be compared with that of another run."""
        self._mlflow.start()
        try:
            eventually(self._mlflow.answers)
            self._loop()
            return self._state()
        finally:
            self._mlflow.stop()

    def _loop(self) -> None:
        generator = Generator(seed=1, customers=400, terminals=800)
        days = [START + timedelta(days=n) for n in range(DAYS)]
        versions: dict[str, int] = {}
        for feed, of, make in (("events", days, generator.events), ("labels", days[7:], generator.labels)):
            span = Days(start=of[0], end=of[-1] + timedelta(days=1))
            path = land_table(pa.concat_tables([make(day) for day in of]), self.home / "landing", SOURCE, feed, span)
            given = {"source": SOURCE, "feed": feed, "partition": path.stem, "uri": str(path)}
            versions |= self._step("ingest", **given)["table_versions"]
        whole = {"start": str(days[0]), "end": str(days[-1] + timedelta(days=2))}
        self._step("features", source=SOURCE, days=whole, table_versions=versions)
        asked = self._step("decide_retraining", model=MODEL, trigger="person", reason="chaos", run="chaos", force=True)
        made = self._step("dataset", model=MODEL, snapshot=asked["snapshot"])
        given = {"model": MODEL, "dataset_uri": made["uri"], "seed": made["seed"]}
        trained = self._step("train", **given, estimator="logistic_regression")
        candidate = {name: trained[name] for name in ("estimator", "run_id", "digest", "artifact_uri")}
        judged = self._step("evaluate", **given, candidates=[candidate], snapshot=asked["snapshot"])
        decided = {name: judged[name] for name in ("challenger", "verdict", "champion_version")}
        version = self._step("register", model=MODEL, **decided, force=True)["version"]
        self._step("rollout", model=MODEL, version=version, reason="chaos")

    def _step(self, name: str, **inputs: Any) -> dict[str, Any]:
        """The result of the step, started again until it succeeds."""
        report, log = self.folder / "report.json", self.folder / f"{name}.log"
        failed = 0
        while failed < TRIES:
            report.unlink(missing_ok=True)
            began = time.monotonic()
            process = StepProcess(step_command(name, inputs, str(report)), self._environment(), log)
            killed = self._kill(name, process)
            code = process.wait(300)
            if code == 0:
                if not killed:
                    self.seconds[name] = time.monotonic() - began
                result: dict[str, Any] = json.loads(report.read_text())["result"]
                return result
            failed += code == ExitCode.TRANSIENT
            if code not in (-9, ExitCode.TRANSIENT):
                raise DidNotConverge(f"{name} ended with {code}. Its log:\n{log.read_text()[-3000:]}")
        raise DidNotConverge(f"{name} did not succeed in {TRIES} tries. Its log:\n{log.read_text()[-3000:]}")

    def _kill(self, step: str, process: StepProcess) -> bool:
        planned = self._plan(step)
        if planned is None:
            return False
        after, target = planned
        deadline = time.monotonic() + after
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        alive = process.poll() is None
        print(f"  kill {target} {after:.3f} s into {step}{'' if alive else ' (it had ended)'}", flush=True)
        if target == "mlflow":
            self._mlflow.signal(9)
            self._mlflow.start()
            eventually(self._mlflow.answers)
        elif alive:
            process.kill()
        else:
            self.missed += 1
        return True

    def _environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CT_")}
        ours = {"CT_HOME": str(self.home), "CT_TRACKING_URI": self.url, "CT_MODELS_DIR": str(self._models)}
        return clean | ours | {"PYTHONPATH": str(ROOT)}

    def _state(self) -> dict[str, Any]:
        lake, ledger = Lake(str(self.home / "lake"), SOURCE), Ledger(str(self.home / "ledger"))
        champion = Registry(self.url).by_alias(MODEL, CHAMPION)
        rows = {table: lake.scan(table).to_table() for table in TABLES}
        return {
            "lake": {
                table: found.sort_by([(name, "ascending") for name in sorted(found.column_names)]).to_pylist()
                for table, found in rows.items()
            },
            "table versions": lake.versions(*TABLES),
            "ledger": [(entry.kind, entry.key, _lasting(entry.body)) for entry in ledger.entries(MODEL)],
            "ledger problems": ledger.problems(MODEL),
            "champion": champion and (champion.version, champion.digest),
            "versions": [version.version for version in Registry(self.url).versions(MODEL)],
            "parts of files": sorted(str(path) for path in (self.home / "lake").rglob("*.tmp")),
        }


def chaos(kills: int, seed: int, folder: Path) -> None:
    """Raises DidNotConverge, with the part of the state that differs."""
    quiet = ChaosLoop(_made(folder / "undisturbed"), lambda step: None)
    expected, chance, left = quiet.run(), random.Random(seed), kills
    print(f"undisturbed: {sum(quiet.seconds.values()):.1f} s of steps, champion {expected['champion']}", flush=True)
    if expected["champion"] is None:
        raise DidNotConverge("The undisturbed loop has no champion")
    number = 0
    while left:
        number += 1

        def plan(step: str) -> tuple[float, str] | None:
            nonlocal left
            if not left or chance.random() < 0.3:
                return None
            left -= 1
            return chance.uniform(0, quiet.seconds[step]), chance.choice(["step", "step", "step", "mlflow"])

        print(f"loop {number}, {left} kills left", flush=True)
        loop = ChaosLoop(_made(folder / f"loop{number}"), plan)
        found = loop.run()
        left += loop.missed
        if different := [part for part, value in expected.items() if found[part] != value]:
            shown = {part: (str(expected[part])[:1500], str(found[part])[:1500]) for part in different}
            raise DidNotConverge(f"Loop {number} of seed {seed} ended differently: {json.dumps(shown, indent=1)}")
    print(f"{kills} kills in {number} loops: all ended with the same lake, ledger and champion", flush=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _batch_model(folder: Path) -> Path:
    """The specs of the model, which no service serves: a rollout then moves the alias and waits for no replica."""
    spec = yaml.safe_load((ROOT / "training" / "models" / f"{MODEL}.yaml").read_text())
    spec |= {"serving": None, "scoring": {"when": "new_data", "maximum_age_days": 14}}
    models = _made(folder / "models")
    (models / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
    return models


def _lasting(body: Any) -> Any:
    """What does not change from one run to the next."""
    if isinstance(body, dict):
        return {name: _lasting(value) for name, value in body.items() if name not in _BY_CHANCE}
    return [_lasting(each) for each in body] if isinstance(body, list) else body


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when every loop converged."""
    parser = argparse.ArgumentParser(prog="testing.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="chaos.") as folder:
        try:
            chaos(args.kills, args.seed, Path(folder))
        except DidNotConverge as error:
            print(f"✗ {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
