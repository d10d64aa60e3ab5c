"""What it costs to score a partition in batch, beyond reading its events and their features.

    make bench-score                      # ARGS='--rows 10000000 --estimators logistic_regression'

Events and feature rows are those of `card_fraud` in number and type of columns, with random values. Each measurement is
a fresh process, which first does the same for a small partition, so that imports do not count. `features` reads the
events and makes the matrix, `model` runs the model's ONNX graph alone, and `score` runs the step, which does both and
makes and commits the rows of the table. Measured are CPU seconds of all threads; score less features is what scoring
costs.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.feature_sql import peak
from training.settings import Settings

MODEL, SOURCE = "card_fraud", "card_payments"
DAY = date(2026, 1, 5)
CUSTOMERS, TERMINALS = 100_000, 50_000
SMALL = 1_000
KINDS = ("features", "model", "score")
GOAL = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000, help="events of the partition")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--estimators", nargs="+", default=["logistic_regression", "hist_gradient_boosting", "mlp"])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        kind, folder = args.measure
        print(json.dumps(measured(kind, Path(folder), args.rows)))
        return
    for estimator in args.estimators:
        with tempfile.TemporaryDirectory(prefix="perennial-score-") as folder:
            make(Path(folder), estimator, args.rows)
            pairs = [{kind: fresh(kind, folder, args.rows) for kind in KINDS} for _ in range(args.runs)]
        # The least of several runs: other programs only add to it.
        features, model, score = (min(pair[kind]["CPU s"] for pair in pairs) for kind in KINDS)
        speed, around = args.rows / (score - features), (score - features - model) / args.rows
        memory = max(pair["score"]["MB"] for pair in pairs)
        print(
            f"{estimator}: features {features:.2f}, model {model:.2f}, score {score:.2f} CPU s, {memory:,.0f} MB:"
            f" {speed:,.0f} rows per CPU second beyond reading features ({1e6 * around:.1f} µs a row beside the model);"
            f" goal {GOAL:,}: {'met' if speed >= GOAL else 'missed'}",
            flush=True,
        )


def fresh(kind: str, folder: str, rows: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.score", "--rows", str(rows), "--measure", kind, folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def settings_in(folder: Path) -> Settings:
    return Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db")


def make(folder: Path, estimator: str, rows: int) -> None:
    """The lake, and a champion of this estimator."""
    from training.adapters.features import Features
    from training.adapters.lake import EVENTS, Lake
    from training.contract.model_spec import load_model_spec

    settings, spec, random = settings_in(folder), load_model_spec(MODEL), np.random.default_rng(0)
    lake, features = Lake(settings.lake, SOURCE, MODEL), Features(settings, spec)
    for day, count in ((DAY - timedelta(days=1), SMALL), (DAY, rows)):
        seconds = np.sort(random.integers(0, 86_400_000_000, count))
        start = int(datetime.combine(day, datetime.min.time(), UTC).timestamp()) * 1_000_000
        columns = {
            "transaction_id": np.arange(count) + (0 if count == SMALL else SMALL),
            "event_time": pa.array(start + seconds, pa.int64()).cast(pa.timestamp("us", "UTC")),
            "customer_id": random.integers(0, CUSTOMERS, count),
            "terminal_id": random.integers(0, TERMINALS, count),
            "amount": np.round(random.gamma(2, 30, count), 2),
            "partition": pa.repeat(str(day), count),
        }
        lake.replace(EVENTS, pa.table(columns), f"partition = '{day}'", ["partition"])
    for view in features.definitions.views:
        entities = CUSTOMERS if view.entity == "customer_id" else TERMINALS
        for day in (DAY - timedelta(days=1), DAY):
            at = datetime.combine(day, datetime.min.time(), UTC)
            stamps = pa.repeat(pa.scalar(at, pa.timestamp("us", "UTC")), entities)
            held = {view.entity: np.arange(entities), "feature_timestamp": stamps}
            held |= {column.name: random.random(entities, np.float32) for column in view.columns}
            held["day"] = pa.repeat(pa.scalar(day), entities)
            lake.replace(view.name, pa.table(held), f"day = '{day}'", ["day"])
    _champion(folder, estimator, features, settings, random)


def _champion(folder: Path, estimator: str, features: Any, settings: Settings, random: np.random.Generator) -> None:
    from testing.serving_artifacts import artifact
    from testing.serving_stack import registered
    from training.adapters.onnx_model import OnnxModel, OnnxScorer, digest, write_artifact
    from training.adapters.registry import CHAMPION, Registry
    from training.contract.artifact import ArtifactMetadata
    from training.contract.model_spec import load_model_spec
    from training.estimators.base import TrainingData, load, number_columns, parameters_for

    names, spec = features.names(), load_model_spec(MODEL)
    matrix = random.random((20_000, len(names)), np.float32)
    labels = (matrix[:, 0] + matrix[:, 7] + random.normal(0, 0.1, len(matrix)) > 1.2).astype(int)
    kind = load(estimator)
    parameters = parameters_for(estimator, kind, "binary", spec.training.estimators.get(estimator, {}))
    content = kind.fit(TrainingData(matrix, labels, number_columns(names), "binary"), parameters, 0).onnx()
    # A tiny artifact has golden events and their features already.
    made = OnnxModel.load(artifact(folder / "tiny", names, 0.0, features=features)).metadata.model_dump()
    scores = OnnxScorer(content).score(np.asarray(made["golden"]["features"], np.float32)).tolist()
    made |= {"digest": digest(content), "estimator": estimator, "golden": {**made["golden"], "scores": scores}}
    path = write_artifact(folder / "served", content, ArtifactMetadata.model_validate(made))
    Registry(settings.tracking_uri).set_alias(MODEL, CHAMPION, registered(settings, path).version)


def measured(kind: str, folder: Path, rows: int) -> dict[str, float]:
    shutil.rmtree(Path(settings_in(folder).lake, SOURCE, "predictions"), ignore_errors=True)  # Of the run before.
    work = {"features": _read_features, "model": _run_model, "score": _score}[kind]
    work(folder, DAY - timedelta(days=1), SMALL)
    cpu, wall = time.process_time(), time.perf_counter()
    work(folder, DAY, rows)
    return {"CPU s": time.process_time() - cpu, "wall s": time.perf_counter() - wall, "MB": peak()}


def _read_features(folder: Path, day: date, rows: int) -> None:
    from training.adapters.features import BatchFeatures
    from training.adapters.lake import EVENTS, Lake
    from training.adapters.onnx_model import OnnxModel
    from training.adapters.tables import Events
    from training.contract.model_spec import load_model_spec
    from training.contract.scoring_spec import NEW_DATA, ScoringSpec

    settings, spec = settings_in(folder), load_model_spec(MODEL)
    lake = Lake(settings.lake, SOURCE, MODEL)
    versions = lake.versions(*spec.source.tables)
    features = BatchFeatures(settings, spec, OnnxModel.load(folder / "served").metadata, versions)
    events = Events(lake, spec.source, versions[EVENTS])
    parts = events.of_partition(str(day), None, ScoringSpec(when=NEW_DATA).batch_rows)
    assert sum(len(features.joined.of(part, features.found(part))[0]) for part in parts) == rows


def _run_model(folder: Path, day: date, rows: int) -> None:
    from training.adapters.onnx_model import OnnxModel

    model = OnnxModel.load(folder / "served")
    matrix = np.random.default_rng(0).random((SMALL, len(model.metadata.feature_names)), np.float32)
    for _ in range(rows // SMALL):
        model.score(matrix)


def _score(folder: Path, day: date, rows: int) -> None:
    from training.contract.messages import ScoreInputs
    from training.steps import score

    result = score.run(ScoreInputs(model=MODEL, partition=str(day)), settings_in(folder))
    assert result.rows == rows


if __name__ == "__main__":
    main()
