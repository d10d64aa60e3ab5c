"""Late labels of each kind of task: performance on matured days, and the evidence of a rollout."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss, root_mean_squared_error

from testing.spec_files import MODEL, SOURCE
from tests.cases import others_long
from tests.steps.prediction_tables import prediction_table
from tests.steps.test_task_kinds import CLASSES, Place
from training.adapters.lake import Lake
from training.adapters.registry import CHAMPION
from training.contract.messages import Candidate, PerformanceInputs, PerformanceResult, Snapshot
from training.contract.model_spec import load_model_spec
from training.contract.rollout_spec import StageSpec
from training.contract.signals import Signals
from training.domain.rollout import Move, Stage
from training.steps import performance
from training.steps.rollout.evidence import LateLabels, comparison

pytestmark = pytest.mark.ci

ROWS = 400
TIMES = pd.date_range("2026-03-02", periods=ROWS, freq="25min", tz="UTC").as_unit("us")
ESTIMATORS = {"multiclass": "logistic_regression", "regression": "linear_regression"}
#: Kind → how wrong a good version and a bad one are: the share of rows with a wrong likeliest class; minutes.
WRONG = {"multiclass": (0.05, 0.6), "regression": (0.0, 40.0)}


def labels_of(kind: str) -> np.ndarray:
    random = np.random.default_rng(2)
    return CLASSES[random.integers(0, 3, ROWS)] if kind == "multiclass" else random.normal(100, 30, ROWS)


def outputs_of(kind: str, wrong: float) -> list[dict[str, float]]:
    """What a version logs for each row, if it is as wrong as that."""
    random, labels = np.random.default_rng(3), labels_of(kind)
    if kind == "regression":
        values = labels + random.normal(0, 10, ROWS) + wrong
        return [{"value": value, "lower": value - 20, "upper": value + 20} for value in values.tolist()]
    right = np.searchsorted(CLASSES.astype(str), labels.astype(str))
    # The same share of the rows of each customer's version.
    is_wrong = np.arange(ROWS) // 2 % 20 < 20 * wrong
    likeliest = np.where(is_wrong, (right + 1) % 3, right)
    probabilities = np.full((ROWS, 3), 0.1) + 0.7 * np.eye(3)[likeliest]
    return [dict(zip(CLASSES, row, strict=True)) for row in probabilities.tolist()]


def log(place: Place, kind: str, versions: Mapping[int, tuple[str, float, np.ndarray]]) -> pd.DataFrame:
    """Rows of predictions, events and labels. `versions`: version → its role, how wrong it is, and its rows.

    Returns the rows, with the `label`.
    """
    spec = load_model_spec(MODEL, place.settings.models_dir, place.settings.feature_repo)
    lake, ids = Lake(place.settings.lake, SOURCE, MODEL), np.arange(ROWS)
    events = pd.DataFrame(
        {"transaction_id": ids, "event_time": TIMES, "customer_id": ids % 50, "terminal_id": 1, "amount": 1.0}
    )
    logged = []
    for version, (role, wrong, rows) in versions.items():
        outputs = [list(row.items()) for row in outputs_of(kind, wrong)]
        added: dict[str, Any] = {"outputs": outputs, "model_version": version, "role": role}
        added |= {"prediction_id": [f"{version}-{i}" for i in ids], "score": 0.0}
        logged.append(events.assign(**added)[rows])
    lake.overwrite("predictions", prediction_table(spec, pd.concat(logged)), ["day"])
    labels = pd.DataFrame({"transaction_id": ids, "is_fraud": labels_of(kind), "reported_at": TIMES})
    for name, table in (("events", events), ("labels", labels)):
        content = pa.Table.from_pandas(table.assign(partition="a"), preserve_index=False)
        lake.replace(name, content, "true", ["partition"])
    return events.assign(label=labels_of(kind))


@pytest.fixture(scope="module", params=list(ESTIMATORS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trained(kind: str, tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> tuple[Place, Candidate]:
    """A stack with two versions of one model; version 1 is the champion."""
    place = Place(tmp_path_factory.mktemp("late") / kind, kind, mlflow_database)
    good = place.train(ESTIMATORS[kind])
    judged = place.evaluate(good)
    assert (place.register(judged), place.register(judged)) == (1, 1)
    other = place.train("hist_gradient_boosting", max_iter=30)
    place.registry.set_alias(MODEL, CHAMPION, 1)
    judged = place.evaluate(other, good)
    forced = judged.model_copy(update={"verdict": judged.verdict.model_copy(update={"promote": True})})
    assert place.register(forced) == 2
    return place, good


def everyone() -> np.ndarray:
    return np.ones(ROWS, bool)


@pytest.mark.parametrize("degraded", others_long([True, False]))
def test_performance_is_measured_on_matured_days(trained: tuple[Place, Candidate], kind: str, degraded: bool) -> None:
    place, good = trained
    rows = log(place, kind, {1: ("champion", WRONG[kind][degraded], everyone())})
    lake = Lake(place.settings.lake, SOURCE, MODEL)
    versions = lake.versions("events", "labels", "predictions")
    snapshot = Snapshot(as_of=date(2026, 3, 16), table_versions=versions, champion_version=1)
    found = performance.run(PerformanceInputs(model=MODEL, snapshot=snapshot), place.settings)

    counted = (rows["event_time"] < pd.Timestamp("2026-03-09", tz="UTC")).to_numpy()
    outputs = pd.DataFrame(outputs_of(kind, WRONG[kind][degraded]))[counted]
    labels = rows["label"][counted]
    assert (found.outcome, found.rows) == ("measured", counted.sum())
    assert found.degraded is degraded
    check_metrics(place, good, found, labels, outputs)


def check_metrics(
    place: Place, good: Candidate, found: PerformanceResult, labels: pd.Series, outputs: pd.DataFrame
) -> None:
    """Against scikit-learn."""
    if "value" in outputs:
        assert found.counts == {}
        assert found.current["rmse"] == pytest.approx(root_mean_squared_error(labels, outputs["value"]))
        covered = (labels - outputs["value"]).abs() <= place.metadata(good).task["half_width"]
        assert found.current["interval_coverage"] == pytest.approx(covered.mean())
        return
    assert found.counts == labels.value_counts().to_dict()
    expected = log_loss(labels.astype(str), outputs[sorted(CLASSES)].to_numpy())
    assert found.current["log_loss"] == pytest.approx(expected, rel=1e-5)
    assert {"macro_f1", "balanced_accuracy", "ovr_auc", "top_k_accuracy"} <= found.current.keys()


@pytest.mark.long
@pytest.mark.parametrize("worse", [None, 1, 2])
def test_a_rollout_compares_both_versions_on_late_labels(
    trained: tuple[Place, Candidate], kind: str, worse: int | None
) -> None:
    """In a shadow stage both score every row, and the guard may trip; in an A/B stage each answers its customers."""
    place, _ = trained
    place.raw["rollout"] = {"guards": {"maximum_quality_drop": 0.05 if kind == "multiclass" else 5.0}}
    place.write()
    spec = load_model_spec(MODEL, place.settings.models_dir, place.settings.feature_repo)
    good, bad = WRONG[kind]
    wrong = {version: bad if version == worse else good for version in (1, 2)}
    move = Move(number=1, kind="rollout", version=2, champion=1, previous=None)

    def late(mode: str) -> tuple[Stage, LateLabels]:
        given = {"weight": 50, "experiment": "x"} if mode == "ab" else {}
        began = datetime(2026, 3, 1, tzinfo=UTC)
        stage = Stage(move=1, number=1, spec=StageSpec(mode=mode, requests=1, **given), version=2, began=began)  # type: ignore[arg-type]
        return stage, LateLabels(stage, move, spec, place.settings)

    log(place, kind, {1: ("champion", wrong[1], everyone()), 2: ("shadow", wrong[2], everyone())})
    _, labels = late("shadow")
    [finding] = labels.findings(final=True)
    assert f"on {ROWS} labelled requests" in str(finding)
    assert finding.tripped is (worse == 2)

    odd = np.arange(ROWS) % 50 % 2 == 1
    log(place, kind, {1: ("champion", wrong[1], ~odd), 2: ("challenger", wrong[2], odd)})
    stage, labels = late("ab")
    [line] = comparison(stage, Signals(champion=1, challenger=2), labels, spec)
    metric = {"multiclass": "log_loss", "regression": "rmse"}[kind]
    assert line.startswith(f"{metric}: champion ")
    assert f"({ROWS // 2} requests), challenger" in line
    better = {None: "within chance", 1: "difference -", 2: "difference +"}[worse]
    assert better in line
    assert ("beyond chance" in line) is (worse is not None)
