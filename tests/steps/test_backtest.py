"""Backtests on a small lake whose payments change: replays equal the live loop, cost nothing twice, and tell."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow as pa
import pytest
import yaml

from local.generator import Change
from testing.pipeline import Pipeline
from tests.cases import others_long
from tests.steps.monitored_model import MODEL, SOURCE, land
from tests.steps.prediction_tables import prediction_table
from training.adapters.features import Features
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.ledger import Ledger
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import CHAMPION, Registry
from training.adapters.registry.connection import connect
from training.adapters.tables import Events
from training.contract import messages as m
from training.contract.base import Days
from training.contract.errors import DataContractError, InputError
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.contract.steps import step_command
from training.domain.encoding import encoded
from training.settings import ROOT, Settings, variable
from training.steps import backtest
from training.steps.decide_retraining import DECISION, REQUEST

pytestmark = [pytest.mark.ci, pytest.mark.timeout(1800)]

#: Payments until the day before END. From CHANGED on their amounts are three times as high.
START, CHANGED, END = date(2026, 1, 5), date(2026, 2, 19), date(2026, 3, 24)
#: The first champion is trained as of FROM. Labels have matured a week before END.
FROM, TO = START + timedelta(days=35), END - timedelta(days=7)
LOOKS = [FROM + timedelta(days=7 * n) for n in range(1, 6)]
#: The version that the predictions of the lake name.
LIVE_VERSION = 40


@dataclass(frozen=True)
class World:
    settings: Settings
    lake: Lake


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> World:
    folder = tmp_path_factory.mktemp("backtest")
    shutil.copy(mlflow_database, folder)
    fields = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    fields["training"]["estimators"] = {"logistic_regression": {}}
    fields["training"]["minimum_class_rows"] = 10
    fields["evaluation"] |= {"limits": {"average_precision": 0.02}, "bootstrap_samples": 60, "confidence": 0.6}
    fields["monitoring"] |= {"minimum_class_rows": 10}
    fields["retraining"] = {"persistence": 1, "cooldown_days": 14}
    (folder / "models").mkdir()
    (folder / "models" / f"{MODEL}.yaml").write_text(yaml.safe_dump(fields))
    settings = Settings(
        home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db", models_dir=folder / "models"
    )
    days = Days(start=START, end=END)
    lake = land(settings, days, (Change(kind="amount_inflation", start=CHANGED, strength=3.0),), customers=500)
    versions = lake.versions("events", "labels")
    whole = Days(start=START, end=END + timedelta(days=1))
    Pipeline(settings).step("features", source=SOURCE, days=whole, table_versions=versions)
    # Of another registry than that of a backtest, which numbers its versions from 1.
    rows = pd.DataFrame({"day": [START], "model_version": [LIVE_VERSION]})
    lake.append_once(PREDICTIONS, pa.Table.from_pandas(rows, preserve_index=False), ["day"], "service", 1)
    return World(settings, lake)


def run(world: World, **inputs: Any) -> m.BacktestResult:
    given = {"model": MODEL, "start": FROM, "end": TO, "processes": 2, **inputs}
    return backtest.run(m.BacktestInputs.model_validate(given), world.settings)


def report(result: m.BacktestResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(result.report_uri).read_text())
    return found


@pytest.fixture(scope="module")
def killed(world: World) -> dict[Path, int]:
    """What a backtest had computed when it was killed, after its second training: file → when it was written."""
    environment = os.environ | {
        variable(name): str(getattr(world.settings, name)) for name in world.settings.model_fields_set
    }
    given = {"model": MODEL, "start": str(FROM), "end": str(TO), "processes": 2}
    command = [sys.executable, *step_command("backtest", given, str(world.settings.home / "killed.json"))]
    with subprocess.Popen(command, env=environment, cwd=ROOT) as process:
        started = psutil.Process(process.pid)
        while len(trainings(world)) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        workers = started.children(recursive=True)
        process.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    return trainings(world)


def trainings(world: World) -> dict[Path, int]:
    found = Path(world.settings.work, MODEL).glob("backtests/*/trainings/**/*.json")
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def whole(world: World, killed: dict[Path, int]) -> m.BacktestResult:
    return run(world)


@pytest.mark.long
def test_all_policies_are_ranked_by_what_they_would_have_cost(world: World, whole: m.BacktestResult) -> None:
    by_name = {each.policy: each for each in whole.standings}
    assert set(by_name) == {"never", "weekly", "monthly", "drift", "performance", "combined", "cost_aware", "oracle"}
    assert [each.cost for each in whole.standings] == sorted(each.cost for each in whole.standings)
    assert (by_name["never"].trainings, by_name["weekly"].trainings, by_name["monthly"].trainings) == (0, 5, 1)
    assert whole.standings[0].policy == "oracle"
    assert all(each.regret >= 0 for each in whole.standings)
    assert by_name["oracle"].regret == 0
    assert by_name["oracle"].trainings <= by_name["weekly"].trainings
    assert by_name["weekly"].false_trainings >= by_name["weekly"].trainings - by_name["weekly"].promoted
    best = min((each for each in whole.standings if each.policy != "oracle"), key=lambda each: each.cost)
    assert whole.recommendation.policy == best.policy
    assert sum(whole.recommendation.best_in.values()) == pytest.approx(1)


@pytest.mark.long
def test_the_change_is_found_and_costs_those_who_do_not_train(whole: m.BacktestResult) -> None:
    asked = [date.fromisoformat(each["day"]) for each in report(whole)["replays"]["drift"]["asked"]]
    assert any(CHANGED < day <= CHANGED + timedelta(days=14) for day in asked)


@pytest.mark.long
def test_the_report_lies_beside_its_pictures_and_in_mlflow(world: World, whole: m.BacktestResult) -> None:
    folder = Path(whole.report_uri).parent
    assert {path.name for path in folder.iterdir()} == {
        "quality.png", "regret.png", "report.json", "report.md", "trainings.png",
    }  # fmt: skip
    assert str(whole.recommendation) in (folder / "report.md").read_text()
    assert "\n    retraining:\n      policy: " in (folder / "report.md").read_text()
    kept = connect(world.settings.tracking_uri).get_run(whole.run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.metrics["weekly/trainings"] == 5
    assert kept.data.metrics["never/cost"] == pytest.approx(
        next(each.cost for each in whole.standings if each.policy == "never")
    )


@pytest.mark.long
def test_the_live_state_is_left_alone(world: World, whole: m.BacktestResult) -> None:
    assert Registry(world.settings.tracking_uri).by_alias(MODEL, CHAMPION) is None
    assert Ledger(world.settings.ledger).entries(MODEL) == []


@pytest.mark.parametrize("looks", others_long([3, len(LOOKS)]))
def test_replayed_decisions_are_those_of_the_live_ledger(world: World, tmp_path: Path, looks: int) -> None:
    """The loop runs over the same days, look by look, with its steps, its registry and its ledger."""
    settings = world.settings.model_copy(
        update={
            "home": tmp_path,
            "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
            "lake_uri": str(tmp_path / "lake"),
        }
    )
    shutil.copytree(world.settings.lake, tmp_path / "lake")
    replay = report(
        run(World(settings, world.lake), end=LOOKS[looks - 1] + timedelta(days=1), policies=["combined"], processes=1)
    )["replays"]["combined"]
    # The lake's predictions name a version of another registry.
    numbers = [json.loads(path.read_text())["version"] for path in trainings(World(settings, world.lake))]
    assert sorted({0, *numbers}) == list(range(len({0, *numbers})))
    live = _LiveLoop(settings)
    live.train(FROM, first=True)
    for before, day in zip([FROM, *LOOKS], LOOKS[:looks], strict=False):
        live.serve(Days(start=before + timedelta(days=1), end=day))
        live.look(day)
        live.serve(Days(start=day, end=day + timedelta(days=1)), earlier=True)
    last = str(LOOKS[looks - 1])
    replayed = [
        (each["trigger"], each["day"], each["reason"], each["outcome"] != "refused", each["outcome"] == "promoted")
        for each in replay["asked"]
        if each["day"] <= last
    ]
    assert replayed == live.asked
    assert {outcome for *_, outcome, _ in replayed} == {True, False}
    served = [each["since"] for each in replay["served"]]
    assert [since for since in served if since <= str(LOOKS[looks - 1] + timedelta(days=1))] == live.served


class _LiveLoop:
    """The steps of the loop in the order of the days, as the DAGs run them."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.steps = settings, Pipeline(settings)
        self.spec = load_model_spec(MODEL, settings.models_dir)
        self.registry = Registry(settings.tracking_uri)
        self.lake, self.ledger = Lake(settings.lake, SOURCE, MODEL), Ledger(settings.ledger)
        self.served: list[str] = []
        self.models: list[tuple[int, OnnxModel]] = []
        self._logged: list[pd.DataFrame] = []
        self._promoted: set[date] = set()

    def train(self, day: date, change: date | None = None, first: bool = False) -> None:
        step = self.steps.step
        dataset: m.DatasetResult = step("dataset", model=MODEL, as_of=day, change=change)
        given = {"model": MODEL, "dataset_uri": dataset.uri, "seed": dataset.seed}
        windows = [window.name for window in dataset.windows]
        trained = [step("train", **given, estimator="logistic_regression", window=name) for name in windows]
        fields = set(m.Candidate.model_fields)
        candidates = [m.Candidate(**each.model_dump(include=fields)) for each in trained]
        judged: m.EvaluateResult = step("evaluate", **given, candidates=candidates)
        if not judged.verdict.promote:
            assert not first
            return
        version = self.steps.register(MODEL, judged).version
        self.registry.set_alias(MODEL, CHAMPION, version)
        self.models.append((version, OnnxModel.load(judged.challenger.artifact_uri)))
        self.served.append(str(day + timedelta(days=1)))
        self._promoted.add(day)

    def serve(self, days: Days, earlier: bool = False) -> None:
        """Log what the champion answers to the events of `days`; `earlier`: the one before, if there is a new one."""
        if days.end <= days.start:
            return
        number = -2 if earlier and days.start in self._promoted and len(self.models) > 1 else -1
        version, model = self.models[number]
        versions = self.lake.versions("events", *self.spec.source.entities)
        rows = Events(self.lake, self.spec.source, versions["events"]).within(days)
        made = Features(self.settings, self.spec).historical(rows, versions)
        columns = model.metadata.columns
        scores = model.score(encoded({column.name: made[column.name].to_numpy() for column in columns}, columns))
        identity = rows["transaction_id"].astype(str)
        self._logged.append(
            rows.assign(prediction_id=identity, predicted_at=rows["event_time"], score=scores, model_version=version)
        )
        table = prediction_table(self.spec, pd.concat(self._logged, ignore_index=True))
        self.lake.overwrite(PREDICTIONS, table, ["day"])

    def look(self, day: date) -> None:
        drift = self.steps.step("drift", model=MODEL, as_of=day, run=f"monitor {day}")
        performance = self.steps.step("performance", model=MODEL, snapshot=drift.snapshot)
        decided = self.steps.step("decide_retraining", model=MODEL, drift=drift, performance=performance)
        if decided.granted:
            taken = {"request_id": decided.request_id, "run": f"train {day}"}
            granted = self.steps.step("decide_retraining", model=MODEL, **taken)
            self.train(granted.snapshot.as_of, granted.change)

    @property
    def asked(self) -> list[tuple[str, str, str, bool, bool]]:
        """What the ledger keeps: trigger, day, reason, whether it was granted; and whether it gave a champion."""
        entries = self.ledger.entries(MODEL)
        outcomes = {
            each.body["request_id"]: each.body["outcome"] for each in reversed(entries) if each.kind == DECISION
        }
        found = []
        for body in (each.body for each in entries if each.kind == REQUEST):
            granted, seen = outcomes[body["id"]] == "granted", date.fromisoformat(body["seen"])
            found.append((body["trigger"], body["seen"], body["reason"], granted, seen in self._promoted))
        return found


@pytest.mark.long
def test_a_killed_backtest_goes_on(world: World, killed: dict[Path, int], whole: m.BacktestResult) -> None:
    assert killed
    assert trainings(world).items() > killed.items()


@pytest.mark.long
def test_what_was_computed_before_is_found_again(world: World, whole: m.BacktestResult) -> None:
    """Another period and other policies train nothing that has been trained."""
    [own] = Path(world.settings.work, MODEL, "backtests").iterdir()
    kept = {path: path.stat().st_mtime_ns for path in own.rglob("*.json") if "reports" not in path.parts}
    part = run(world, policies=["weekly", "never"], end=TO - timedelta(days=14))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not set(own.rglob("trainings/*.json")) - set(kept)
    assert {each.policy for each in part.standings} == {"weekly", "never"}
    values = report(whole)["values"]["weekly"]
    assert report(part)["values"]["weekly"] == values[: len(report(part)["values"]["weekly"])]


@pytest.mark.long
def test_with_other_settings_of_monitoring_monitors_look_again_and_nothing_is_trained_again(
    world: World, whole: m.BacktestResult, tmp_path: Path
) -> None:
    assert next(each for each in whole.standings if each.policy == "drift").trainings
    kept = trainings(world)
    fields = yaml.safe_load((world.settings.models_dir / f"{MODEL}.yaml").read_text())
    fields["monitoring"] |= {"minimum_shift": 1.0, "minimum_new_share": 1.0}
    (tmp_path / f"{MODEL}.yaml").write_text(yaml.safe_dump(fields))
    found = run(World(world.settings.model_copy(update={"models_dir": tmp_path}), world.lake), policies=["drift"])
    assert found.standings[0].trainings == 0
    assert trainings(world) == kept


@pytest.mark.long
def test_the_same_backtest_again_is_the_same(world: World, whole: m.BacktestResult) -> None:
    assert run(world) == whole


def test_a_period_that_is_too_short_says_what_there_is(world: World) -> None:
    with pytest.raises(DataContractError, match="too little to replay"):
        run(world, start=TO - timedelta(days=8))


def test_a_period_that_ends_before_it_begins_is_refused(world: World) -> None:
    for days in (0, 7):
        with pytest.raises(InputError, match="which is not after its start"):
            run(world, start=TO, end=TO - timedelta(days=days))


@pytest.mark.parametrize("start", others_long([date(2099, 1, 1), date(1999, 1, 1)]))
def test_a_period_that_the_lake_does_not_have_says_what_there_is(world: World, start: date) -> None:
    with pytest.raises(DataContractError, match=r"too little to replay|No first champion"):
        run(world, start=start, end=start + timedelta(days=28))


@pytest.mark.long
def test_trainings_may_cost_nothing(world: World, whole: m.BacktestResult) -> None:
    """One policy alone, at the price 0: its cost is the loss."""
    [standing] = run(world, policies=["weekly"], price=0.0).standings
    assert (standing.policy, standing.trainings) == ("weekly", 5)
    assert standing.cost == pytest.approx(-standing.quality)


def test_without_history_no_first_champion_can_be_trained(world: World) -> None:
    with pytest.raises(DataContractError, match="No first champion"):
        run(world, start=START, end=START + timedelta(days=22))
