"""One run reads one snapshot: what lands between its steps, and a champion that changes, alter none of its results."""

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from testing.verdicts import computed
from tests.steps.monitored_model import DRIFTED, MODEL, QUIET, SOURCE, MonitoredModel
from tests.steps.prediction_tables import prediction_table
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, Registry
from training.adapters.registry.connection import connect
from training.contract import messages as m
from training.contract.base import midnight
from training.contract.errors import InputError
from training.contract.model_spec import load_model_spec
from training.settings import Settings
from training.steps import audit, dataset, decide_retraining, drift, evaluate, performance, register, train

pytestmark = pytest.mark.ci

TABLES = ("events", "labels", "predictions", "customer_features", "terminal_features")
AS_OF = QUIET - timedelta(days=3)
Between = Callable[[Settings], None]


def undisturbed(settings: Settings) -> None:
    """Nothing happens."""


def disturb(settings: Settings) -> None:
    """More events land, every other label is corrected, other rows disappear, and another version is the champion."""
    lake = Lake(settings.lake, SOURCE, MODEL)
    for table in TABLES:
        rows = lake.scan(table).to_table()
        if table == "events":
            later = pc.add(rows["event_time"], pa.scalar(timedelta(days=1)))
            more = rows.set_column(rows.schema.get_field_index("event_time"), "event_time", later)
            rows = pa.concat_tables([rows, more.cast(rows.schema)])
        elif table == "labels":
            flipped = pc.cast(pc.subtract(1, rows["is_fraud"]), rows.schema.field("is_fraud").type)
            rows = rows.set_column(rows.schema.get_field_index("is_fraud"), rows.schema.field("is_fraud"), flipped)
        else:
            rows = rows.slice(0, rows.num_rows // 3)
        lake.replace(table, rows, "true", lake_partitions(table))
    registry, client = Registry(settings.tracking_uri), connect(settings.tracking_uri)
    experiment = client.get_experiment_by_name(MODEL)
    assert experiment is not None
    other = registry.register(MODEL, client.create_run(experiment.experiment_id).info.run_id, "other", {})
    registry.set_alias(MODEL, CHAMPION, other.version)


def lake_partitions(table: str) -> list[str]:
    return ["partition"] if table in ("events", "labels") else ["day"]


@pytest.fixture
def copies(world: MonitoredModel, tmp_path: Path) -> Callable[[str], Settings]:
    """Makes copies of the world whose champion has predicted the last three weeks."""

    def copy(name: str) -> Settings:
        folder = tmp_path / name
        shutil.copytree(world.settings.home, folder / "home")
        shutil.rmtree(folder / "home" / "ledger", ignore_errors=True)
        shutil.copy(world.settings.tracking_uri.removeprefix("sqlite:///"), folder / "mlflow.db")
        made = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db")
        log_predictions(made)
        return made

    return copy


def log_predictions(settings: Settings) -> None:
    spec, lake = load_model_spec(MODEL), Lake(settings.lake, SOURCE, MODEL)
    events = lake.scan("events").to_table(list(spec.request_columns)).to_pandas()
    events = events[events["event_time"] >= midnight(DRIFTED - timedelta(days=21))].reset_index(drop=True)
    scored = events.assign(score=np.random.default_rng(0).random(len(events)))
    table = prediction_table(spec, scored, features=[[("payment_amount", 1.0)]] * len(events))
    lake.overwrite("predictions", table, ["day"])


def monitoring_run(settings: Settings, between: Between) -> dict[str, dict[str, Any]]:
    """The steps as dags/drift.py wires them, with `between` after each. Without what names the place."""
    measured = drift.run(m.DriftInputs(model=MODEL, run="monitor-1"), settings)
    between(settings)
    again = drift.run(m.DriftInputs(model=MODEL, run="monitor-1"), settings)  # A retry.
    given = {"model": MODEL, "snapshot": measured.snapshot}
    shown = performance.run(m.PerformanceInputs(**given), settings)
    between(settings)
    skew = audit.run(m.AuditInputs(**given), settings)
    inputs = m.DecideRetrainingInputs(model=MODEL, drift=measured, performance=shown)
    decided = decide_retraining.run(inputs, settings)
    results = {"drift": measured, "again": again, "performance": shown, "audit": skew, "decided": decided}
    places = {"report_html", "report_json", "report"}
    return {name: result.model_dump(exclude=places) for name, result in results.items()}


def test_a_monitoring_run_reads_one_snapshot(copies: Callable[[str], Settings]) -> None:
    quiet, busy = copies("quiet"), copies("busy")
    expected, found = monitoring_run(quiet, undisturbed), monitoring_run(busy, disturb)
    assert (
        expected["drift"]["outcome"] == expected["performance"]["outcome"] == expected["audit"]["outcome"] == "measured"
    )
    assert expected["drift"] == expected["again"]
    assert found == expected
    # The lake and the registry have moved: a new run sees the new state.
    new = drift.run(m.DriftInputs(model=MODEL, run="monitor-2", as_of=date(2025, 1, 1)), busy)
    assert new.snapshot.champion_version == 3  # It has changed twice.
    assert all(version > found["drift"]["snapshot"]["table_versions"][t] for t, version in new.table_versions.items())


def training_run(settings: Settings, between: Between) -> dict[str, Any]:
    """The steps up to the verdict as dags/train.py wires them, with `between` after each."""
    asked = {"model": MODEL, "trigger": "person", "as_of": AS_OF, "force": True, "run": "train-1"}
    decided = decide_retraining.run(m.DecideRetrainingInputs(**asked), settings)
    between(settings)
    assert decide_retraining.run(m.DecideRetrainingInputs(**asked), settings) == decided  # A retry.
    assert decided.snapshot is not None
    made = dataset.run(m.DatasetInputs(model=MODEL, snapshot=decided.snapshot), settings)
    between(settings)
    data = {"model": MODEL, "dataset_uri": made.uri, "seed": made.seed}
    fitted = train.run(m.TrainInputs(**data, estimator="logistic_regression"), settings)
    candidate = m.Candidate(**fitted.model_dump(include=set(m.Candidate.model_fields)))
    judged = evaluate.run(m.EvaluateInputs(**data, snapshot=decided.snapshot, candidates=[candidate]), settings)
    return {"decided": decided, "dataset": made, "judged": judged}


def test_a_training_run_reads_one_snapshot(copies: Callable[[str], Settings]) -> None:
    quiet, busy = copies("quiet"), copies("busy")
    expected, found = training_run(quiet, undisturbed), training_run(busy, disturb)
    assert expected["decided"].granted
    assert expected["decided"].snapshot.as_of == AS_OF
    assert set(expected["decided"].snapshot.table_versions) == set(TABLES)
    assert found["decided"] == expected["decided"]
    assert found["dataset"].dataset_id == expected["dataset"].dataset_id
    for split in ("train", "holdout"):
        files = [Path(getattr(run["dataset"], split).uri).read_bytes() for run in (found, expected)]
        assert files[0] == files[1]
    compared = [run["judged"] for run in (found, expected)]
    assert computed(compared[0].verdict) == computed(compared[1].verdict)
    assert [each.champion_version for each in compared] == [1, 1]
    # The champion has changed since the run began, so the verdict does not hold for the one that serves now.
    judged = found["judged"].model_dump(include={"challenger", "verdict", "champion_version"})
    verdict = {**judged["verdict"], "promote": True}
    with pytest.raises(InputError, match=r"judged against version 1 .* version \d serves now"):
        register.run(m.RegisterInputs(model=MODEL, **{**judged, "verdict": verdict}), busy)


def test_a_run_that_takes_a_released_request_gets_a_new_snapshot(copies: Callable[[str], Settings]) -> None:
    settings = copies("one")
    code = m.DecideRetrainingInputs(model=MODEL, trigger="code", reason="new code")
    id_ = decide_retraining.run(code, settings).request_id

    def start(run: str) -> m.DecideRetrainingResult:
        return decide_retraining.run(m.DecideRetrainingInputs(model=MODEL, request_id=id_, run=run), settings)

    first = start("train-1")
    assert first.snapshot is not None
    assert first.snapshot.champion_version == 1
    disturb(settings)
    assert start("train-1") == first
    assert start("train-2").snapshot is None
    failed = m.DecideRetrainingInputs(model=MODEL, request_id=id_, run="train-1", failed=True)
    assert decide_retraining.run(failed, settings).snapshot is None
    second = start("train-2").snapshot
    assert second is not None
    assert (second.champion_version, second.as_of) == (2, first.snapshot.as_of)
    assert second.table_versions["labels"] > first.snapshot.table_versions["labels"]
    assert Ledger(settings.ledger).problems(MODEL) == []
