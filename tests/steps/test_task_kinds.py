"""Tasks other than binary from dataset to registered version, and a kind that nobody has heard of, in one file."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from testing.spec_files import MODEL, Raw, raw_specs, spec_files
from tests.cases import others_in_ci, others_long
from tests.steps.prediction_tables import prediction_table
from tests.steps.training_rows import write_dataset
from training import fit_job
from training.adapters.datasets import Dataset
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import CHAMPION, Registry
from training.adapters.registry.connection import connect
from training.contract.artifact import ArtifactMetadata
from training.contract.errors import ConfigError
from training.contract.messages import (
    Candidate,
    EvaluateInputs,
    EvaluateResult,
    RegisterInputs,
    Snapshot,
    TrainInputs,
)
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.registries import TASKS
from training.contract.tasks import MetricRule
from training.domain.evaluation_set import EvaluationSet
from training.domain.resampling import Sample
from training.domain.task_kind import Fitting, LabelledRows, Scored, ServedTask, TaskKind, served_task
from training.settings import Settings
from training.steps import drift, evaluate, register, train

CLASSES = np.array(["cancelled", "late", "on time"], dtype=object)

# --- a fourth kind: how often something happens, measured by the Poisson deviance ---


@dataclass(frozen=True)
class ServedCount(ServedTask):
    output_names = ("expected",)

    def outputs(self, scores: np.ndarray) -> np.ndarray:
        return scores.astype(np.float64)[:, np.newaxis]

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0]

    def answer(self, outputs: Sequence[float]) -> dict[str, Any]:
        return {"expected": outputs[0]}

    @property
    def answer_schema(self) -> dict[str, Any]:
        return {"expected": {"type": "number"}}

    def stored(self) -> dict[str, Any]:
        return {"kind": "count"}


class ScoredCount(Scored):
    def value(self, metric: str, sample: Sample | None = None) -> float:
        labels, expected = self.truth.labels, np.maximum(self.values, 1e-6)
        weights = (sample or self.truth.whole).entity_weights
        logs = np.where(labels > 0, labels * np.log(np.maximum(labels, 1) / expected), 0.0)
        return float(weights @ (2 * (logs - labels + expected)) / weights.sum())


@TASKS.register("count")
class Count(TaskKind):
    target = "number"

    @property
    def rules(self) -> Mapping[str, MetricRule]:
        return {"poisson_deviance": MetricRule(False, 0, float("inf"))}

    def truth(self, labels: np.ndarray) -> np.ndarray:
        return np.asarray(labels, dtype=np.float64)

    def lacks_to_fit(self, truth: np.ndarray, minimum: int) -> str:
        return "" if truth.any() else "no event"

    def lacks_to_measure(self, truth: np.ndarray, minimum: int) -> str:
        return self.lacks_to_fit(truth, minimum)

    def encode(self, truth: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        return truth, ()

    def fit(self, fitting: Fitting) -> ServedCount:
        return ServedCount()

    @staticmethod
    def served(stored: Mapping[str, Any]) -> ServedCount:
        return ServedCount()

    def scored(self, truth: EvaluationSet, scores: np.ndarray, served: ServedTask) -> ScoredCount:
        return ScoredCount(truth, scores, tuple(self.rules))

    def reference(self, train: LabelledRows, rows: LabelledRows) -> tuple[str, np.ndarray, ServedCount]:
        return "the mean count in training", np.full(len(rows.labels), train.labels.mean()), ServedCount()


# --- the same steps for every kind ---


def delays(features: Mapping[str, np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Numbers that depend on two features, with errors of about 10."""
    return (
        20 * np.log1p(features["amount"])
        + 3 * features["customer_count_7d"]
        + random.normal(0, 10, len(features["amount"]))
    )


def outcomes(features: Mapping[str, np.ndarray], random: np.random.Generator) -> np.ndarray:
    return CLASSES[np.digitize(delays(features, random), [60, 110])]


def counts(features: Mapping[str, np.ndarray], random: np.random.Generator) -> np.ndarray:
    return random.poisson(np.maximum(delays(features, random), 1) / 20)


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], Callable[..., np.ndarray]]] = {
    # kind → the label's column, the task, the evaluation, the labels
    "multiclass": (
        {"type": "string", "values": CLASSES.tolist()},
        {"decision": {"reject_below": 0.5}},
        {"limits": {"log_loss": 1.0}, "margins": {"macro_f1": 0.02}, "entity": "customer_id"},
        outcomes,
    ),
    "regression": (
        {"type": "float64"},
        {"interval": {"coverage": 0.9}, "reference": {"by": ["terminal_id"], "season": "weekday"}},
        {"limits": {"rmse": 40.0}, "margins": {"mae": {"relative": 0.02}}},
        delays,
    ),
    "count": (
        {"type": "int64"},
        {"horizon": 3},
        {"primary": "poisson_deviance", "limits": {"poisson_deviance": 3.0}},
        counts,
    ),
}


class Place:
    """One kind's spec and dataset, and a registry of its own."""

    def __init__(self, folder: Path, kind: str, mlflow_database: Path) -> None:
        folder.mkdir(parents=True)
        column, task, evaluation, labels = KINDS[kind]
        shutil.copy(mlflow_database, folder)
        self.folder, (self.raw, _) = folder, raw_specs()
        self.column, self.raw["task"], self.raw["evaluation"] = column, {"kind": kind, **task}, evaluation
        tracking_uri = f"sqlite:///{folder}/mlflow.db"
        self.settings = Settings(home=folder / "home", tracking_uri=tracking_uri, **self.write())
        self.registry = Registry(self.settings.tracking_uri)
        self.uri = write_dataset(folder / "dataset", whole_days=True)
        random = np.random.default_rng(1)
        for split in ("train", "holdout"):
            path = Path(self.uri, f"{split}.parquet")
            table = pq.read_table(path)
            features = {name: table[name].to_numpy() for name in ("amount", "customer_count_7d")}
            at = table.column_names.index("is_fraud")
            pq.write_table(table.set_column(at, "is_fraud", pa.array(labels(features, random))), path)

    def write(self) -> dict[str, Path]:
        """The spec files with what `raw` says now."""

        def change(model: Raw, source: Raw) -> None:
            model.update(self.raw)
            source["feeds"]["labels"]["columns"]["is_fraud"] = self.column

        return spec_files(self.folder, change)

    @property
    def spec(self) -> ModelSpec:
        return load_model_spec(MODEL, self.settings.models_dir, self.settings.feature_repo)

    def train(self, estimator: str, **parameters: Any) -> Candidate:
        inputs = TrainInputs(model=MODEL, estimator=estimator, parameters=parameters, dataset_uri=self.uri, seed=1)
        trained = train.run(inputs, self.settings)
        return Candidate(**trained.model_dump(include=set(Candidate.model_fields)))

    def evaluate(self, *candidates: Candidate) -> EvaluateResult:
        inputs = EvaluateInputs(model=MODEL, candidates=list(candidates), dataset_uri=self.uri, seed=1)
        return evaluate.run(inputs, self.settings)

    def register(self, evaluated: EvaluateResult) -> int:
        inputs = {"model": MODEL, **evaluated.model_dump(include={"challenger", "verdict", "champion_version"})}
        return register.run(RegisterInputs.model_validate(inputs), self.settings).version

    def metadata(self, candidate: Candidate) -> ArtifactMetadata:
        return OnnxModel.load(candidate.artifact_uri).metadata


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, mlflow_database: Path) -> Place:
    return Place(tmp_path / request.param, request.param, mlflow_database)


LINEAR = {"multiclass": "logistic_regression", "regression": "linear_regression", "count": "linear_regression"}


@pytest.mark.parametrize("place", others_in_ci(["multiclass", "count", "regression"], first=2), indirect=True)
def test_each_kind_is_trained_judged_and_registered(place: Place) -> None:
    kind = place.raw["task"]["kind"]
    poor = place.train("hist_gradient_boosting", max_iter=1, max_leaf_nodes=2)
    first = place.evaluate(poor)
    assert first.verdict.promote, first.verdict.reasons
    assert first.verdict.skill is not None
    assert 0 < first.verdict.skill < 1
    assert any("of the naive reference, the" in reason for reason in first.verdict.reasons)
    place.registry.set_alias(MODEL, CHAMPION, place.register(first))
    good = place.train(LINEAR[kind])
    second = place.evaluate(good, poor)
    assert second.challenger == good
    assert second.verdict.promote, second.verdict.reasons
    assert place.register(second) == 2
    assert "| naive reference |" in Path(second.report_uri).with_suffix(".md").read_text()
    # The other way round the champion stays.
    place.registry.set_alias(MODEL, CHAMPION, 2)
    assert not place.evaluate(poor).verdict.promote


@pytest.mark.parametrize(
    ("place", "output"),
    others_in_ci([("regression", "_value"), ("multiclass", "_class"), ("count", "_expected")]),
    indirect=["place"],
)
def test_logged_outputs_of_each_kind_drift_when_they_move_and_only_then(place: Place, output: str) -> None:
    """Of the holdout's events, whose features are those of training."""
    champion = place.train(LINEAR[place.raw["task"]["kind"]])
    place.registry.set_alias(MODEL, CHAMPION, place.register(place.evaluate(champion)))
    model, spec = OnnxModel.load(champion.artifact_uri), place.spec
    holdout = Dataset(place.uri, spec).holdout()
    rows = holdout.table.to_pandas()
    window, lake = Dataset(place.uri, spec).manifest.holdout.days, Lake(place.settings.lake, spec.source.name, MODEL)
    events = pa.Table.from_pandas(rows[list(spec.request_columns)], preserve_index=False)
    lake.append_once(EVENTS, events, ["customer_id"], "r", 1)
    scores = model.score(holdout.features(model.metadata.columns))
    found = {}
    for number, moved in enumerate((scores, np.roll(scores, 1, axis=-1) if scores.ndim > 1 else scores * 1.5)):
        logged = served_task(model.metadata.task).logged(moved)
        outputs = [list(zip(model.metadata.outputs, row, strict=True)) for row in logged]
        lake.overwrite(PREDICTIONS, prediction_table(spec, rows.assign(score=0.0, outputs=outputs)), ["day"])
        versions = lake.versions(EVENTS, PREDICTIONS)
        snapshot = Snapshot(as_of=window.end, table_versions=versions, champion_version=1)
        registered = place.registry.get(MODEL, 1)
        answers = drift._logged_outputs(model, registered, snapshot, window, spec, place.settings)
        assert answers is not None, number
        compared = drift.compare_rows(rows, answers, registered, model, window, versions, spec, place.settings)
        found[number] = {name for name, shift in compared.shifts.items() if shift.drifted and name.startswith("_")}
    assert not found[0]
    assert output in found[1]


@pytest.mark.ci
@pytest.mark.parametrize("place", ["multiclass"], indirect=True)
def test_a_multiclass_artifact_holds_classes_and_the_reject_rule(place: Place) -> None:
    metadata = place.metadata(place.train("logistic_regression"))
    assert metadata.task == {"kind": "multiclass", "classes": CLASSES.tolist(), "reject_below": 0.5}
    assert metadata.outputs == CLASSES.tolist()
    assert set(metadata.holdout_metrics) == {"log_loss", "macro_f1", "balanced_accuracy", "ovr_auc", "top_k_accuracy"}
    np.testing.assert_allclose(np.sum(metadata.golden.scores, axis=1), 1, atol=1e-5)


@pytest.mark.ci
@pytest.mark.parametrize("place", ["regression"], indirect=True)
def test_intervals_cover_what_they_promise_and_blocks_of_time_are_drawn(place: Place) -> None:
    good = place.train("linear_regression")
    metadata = place.metadata(good)
    assert metadata.outputs == ["value", "lower", "upper"]
    # The quantile .95 of a normal error with deviation 10, and what the logarithm leaves unexplained.
    assert 12 < metadata.task["half_width"] < 40
    assert metadata.holdout_metrics["interval_coverage"] == pytest.approx(0.9, abs=0.03)
    run = connect(place.settings.tracking_uri).get_run(good.run_id)
    assert run.data.metrics["half_width"] == metadata.task["half_width"]
    plots = {file.path for file in connect(place.settings.tracking_uri).list_artifacts(good.run_id, "plots")}
    assert {"plots/residuals.png", "plots/predicted_against_actual.png"} <= plots
    first = place.evaluate(good)
    assert any("interval_coverage" in reason and "at least 0.8500" in reason for reason in first.verdict.reasons)
    assert any("the mean of the labels in training by terminal_id, weekday" in each for each in first.verdict.reasons)
    place.registry.set_alias(MODEL, CHAMPION, place.register(first))
    other = place.train("hist_gradient_boosting")
    assert "the bootstrap draws blocks" in " ".join(place.evaluate(other).verdict.reasons)


@pytest.mark.parametrize("place", ["regression"], indirect=True)
def test_the_fit_does_not_see_the_rows_that_set_the_intervals(place: Place) -> None:
    """Labels of the last fifth that nobody could predict widen the interval and leave the model as it is."""
    before = place.train("linear_regression")
    path = Path(place.uri, "train.parquet")
    table = pq.read_table(path)
    labels = table["is_fraud"].to_numpy().copy()
    order = np.lexsort((table["transaction_id"].to_numpy(), table["event_time"].to_numpy()))
    labels[order[-int(0.2 * len(labels)) :]] += 500
    pq.write_table(table.set_column(table.column_names.index("is_fraud"), "is_fraud", pa.array(labels)), path)
    manifest = Path(place.uri, "dataset.json")
    manifest.write_text(manifest.read_text().replace('"dataset-0"', '"dataset-1"'))
    after = place.train("linear_regression")
    assert after.run_id != before.run_id
    assert after.digest == before.digest
    assert place.metadata(after).task["half_width"] > place.metadata(before).task["half_width"] + 400


@pytest.mark.long
@pytest.mark.parametrize("place", ["regression"], indirect=True)
def test_a_champion_of_another_kind_stays_until_a_person_replaces_it(place: Place) -> None:
    place.registry.set_alias(MODEL, CHAMPION, place.register(place.evaluate(place.train("linear_regression"))))
    place.raw |= {"task": {"kind": "count"}, "evaluation": KINDS["count"][2]}
    place.write()
    verdict = place.evaluate(place.train("hist_gradient_boosting", max_iter=5)).verdict
    assert not verdict.promote
    assert "The model predicts for a task of kind regression, and the spec names count" in " ".join(verdict.reasons)


@pytest.mark.long
@pytest.mark.parametrize("method", others_long(["isotonic", "sigmoid"]))
@pytest.mark.parametrize("place", ["multiclass"], indirect=True)
def test_classes_are_calibrated_inside_the_graph(place: Place, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = place.train("logistic_regression")
    place.raw["training"]["calibration"] = method
    place.write()
    calibrated = place.train("logistic_regression")
    assert calibrated.digest != plain.digest
    model = OnnxModel.load(calibrated.artifact_uri)
    model.check_golden()
    np.testing.assert_allclose(np.sum(model.metadata.golden.scores, axis=1), 1, atol=1e-5)
    judged = place.evaluate(calibrated)
    assert judged.verdict.promote, judged.verdict.reasons
    # Calibration is fitted by scikit-learn, whatever fits the model.
    boosted = place.train("lightgbm", n_estimators=5)
    monkeypatch.setattr(fit_job, "version", lambda name: "99.0" if name == "scikit-learn" else version(name))
    assert place.train("lightgbm", n_estimators=5).run_id != boosted.run_id


@pytest.mark.parametrize("place", ["count"], indirect=True)
def test_metrics_of_another_kind_are_checked_when_the_task_is_made(place: Place) -> None:
    place.raw["evaluation"] = {"primary": "rmse", "limits": {"rmse": 3.0}}
    place.write()
    with pytest.raises(ConfigError, match="The task count has no metric 'rmse'"):
        place.train("linear_regression")
