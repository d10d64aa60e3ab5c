"""What the compared servers need: a real model, a registry, Redis with feature rows, and processes to run them in."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import yaml

from training.adapters.features import Features, OnlineRows
from training.adapters.lake import Lake
from training.adapters.onnx_model import OnnxScorer, digest, write_artifact
from training.adapters.registry import Registry
from training.contract.artifact import ArtifactMetadata, Golden
from training.contract.base import Days
from training.contract.model_spec import load_model_spec
from training.contract.traffic import Desired
from training.estimators.base import TrainingData, load, number_columns, parameters_for
from training.settings import ROOT, Settings

ENTITIES = 1_000
BIN = Path(sys.executable).parent
PLAIN = """
import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64

NAMES = {names!r}
sent = RequestSource(name="sent", schema=[Field(name=n, dtype=Float64) for n in NAMES])


@on_demand_feature_view(sources=[sent], schema=[Field(name=f"x_{{n}}", dtype=Float64) for n in NAMES])
def as_sent(inputs: pd.DataFrame) -> pd.DataFrame:
    return type(inputs)({{f"x_{{n}}": inputs[n] for n in NAMES}})

"""


@dataclass
class BenchEnvironment:
    settings: Settings
    names: list[str]
    #: The served artifact of the model that takes its features from the request; the other's has the same graph.
    model: Path


def event(number: int, names: list[str]) -> dict[str, Any]:
    head = {"transaction_id": number, "event_time": "2026-01-05T12:30:00Z"}
    return {**head, "customer_id": number % ENTITIES, "terminal_id": number * 7 % ENTITIES, "amount": 25.5} | {
        name: 0.5 for name in names
    }


def make(folder: Path, redis: str, tracking_uri: str) -> BenchEnvironment:
    """A gradient-boosted model of 17 features, registered twice: as `plain`, whose features come with the request, and
    as `card_fraud`, whose features come from Redis."""
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"
    spec = load_model_spec("card_fraud")
    names = Features(Settings(home=folder / "names"), spec).names()
    _definitions(folder, names)
    settings = Settings(
        home=folder / "home",
        tracking_uri=tracking_uri,
        online_store=redis,
        models_dir=folder / "models",
        feature_repo=folder / "feature_repo",
    )
    rng = np.random.default_rng(0)
    features = rng.random((4_000, len(names)), np.float32)
    labels = (features[:, 0] + features[:, 7] + rng.normal(0, 0.1, len(features)) > 1.2).astype(int)
    estimator = load("hist_gradient_boosting")
    given = spec.training.estimators.get("hist_gradient_boosting", {})
    parameters = parameters_for("hist_gradient_boosting", estimator, "binary", given)
    data = TrainingData(features, labels, number_columns(names), "binary")
    content = estimator.fit(data, parameters, 0).onnx()
    for model, prefix in (("plain", "x_"), ("card_fraud", "")):
        path = _artifact(folder / model, model, content, [prefix + name for name in names], features[:8])
        _register(settings, model, path)
    _feature_rows(settings, names)
    return BenchEnvironment(settings, names, folder / "plain")


def add_models(world: BenchEnvironment, count: int) -> list[str]:
    """Register copies of card_fraud, each with a champion. Returns their names."""
    folder, made = world.model.parent, [f"model_{number:02d}" for number in range(count)]
    spec = yaml.safe_load((world.settings.models_dir / "card_fraud.yaml").read_text())
    content = (world.model / "model.onnx").read_bytes()
    rows = np.random.default_rng(2).random((8, len(world.names)), np.float32)
    for name in made:
        (world.settings.models_dir / f"{name}.yaml").write_text(yaml.safe_dump(spec | {"name": name}))
        _register(world.settings, name, _artifact(folder / name, name, content, world.names, rows))
    return made


def _definitions(folder: Path, names: list[str]) -> None:
    (folder / "models").mkdir()
    shutil.copytree(ROOT / "feature_repo", folder / "feature_repo")
    (folder / "feature_repo" / "plain.py").write_text(PLAIN.format(names=names))
    model = ROOT / "training" / "models" / "card_fraud.yaml"
    shutil.copy(model, folder / "models")
    spec = yaml.safe_load(model.read_text()) | {"name": "plain", "source": "plain"}
    (folder / "models" / "plain.yaml").write_text(yaml.safe_dump(spec))
    source = yaml.safe_load((ROOT / "feature_repo" / "card_payments.yaml").read_text())
    source |= {"name": "plain", "features": {"tables": {}}}
    source["feeds"]["events"]["columns"] |= {name: {"type": "float64"} for name in names}
    (folder / "feature_repo" / "plain.yaml").write_text(yaml.safe_dump(source))


def _artifact(folder: Path, model: str, content: bytes, names: list[str], rows: np.ndarray) -> Path:
    day, days = date(2026, 1, 5), Days(start=date(2025, 12, 1), end=date(2025, 12, 8))
    metadata = ArtifactMetadata(
        model=model,
        estimator="hist_gradient_boosting",
        digest=digest(content),
        feature_service=model,
        feature_names=names,
        threshold=0.5,
        golden=Golden(features=rows.tolist(), scores=OnnxScorer(content).score(rows).tolist()),
        dataset_id="bench",
        as_of=day,
        train_days=days,
        holdout_days=days,
        table_versions={},
        holdout_metrics={},
        parameters={},
        config_hash="",
    )
    return write_artifact(folder, content, metadata)


def _register(settings: Settings, model: str, artifact: Path, alias: str = "champion") -> None:
    from mlflow import MlflowClient

    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    run = client.create_run("0").info.run_id
    client.log_artifacts(run, str(artifact), "served")
    content = (artifact / "model.onnx").read_bytes()
    registry = Registry(settings.tracking_uri)
    version = registry.register(model, run, digest(content), {})
    registry.set_alias(model, alias, version.version)


def _feature_rows(settings: Settings, names: list[str]) -> None:
    spec = load_model_spec("card_fraud", settings.models_dir, settings.feature_repo)
    lake, midnight = Lake(settings.lake, spec.source.name), datetime(2026, 1, 5, tzinfo=UTC)
    rng = np.random.default_rng(1)
    for entity in ("customer", "terminal"):
        columns: dict[str, Any] = {
            f"{entity}_id": np.arange(ENTITIES),
            "feature_timestamp": pa.array([midnight] * ENTITIES, pa.timestamp("us", "UTC")),
        }
        columns |= {n: rng.random(ENTITIES, np.float32) for n in names if n.startswith(f"{entity}_")}
        table = pa.table(columns | {"day": [midnight.date()] * ENTITIES})
        lake.replace(f"{entity}_features", table, "day = '2026-01-05'", ["day"])
    OnlineRows(settings, spec.source).materialize(lake.versions(*spec.source.entities))


@contextmanager
def running(command: list[str], env: dict[str, str], url: str, log: Path, patience: float = 120) -> Iterator[int]:
    """The process of `command` once `url` answers 200, ended afterwards; yields its pid."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("CT_", "BENTOML_", "MLFLOW_"))}
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=keep | env, stdout=out, stderr=out, cwd=ROOT, start_new_session=True)
    try:
        deadline = time.monotonic() + patience
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not come up; see {log}:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield process.pid
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 15)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def cpu_seconds(pid: int) -> float:
    """What a process and its descendants have used of the processors so far."""
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError as error:
        # A server without such a page is up, too.
        return getattr(error, "code", 503) in (404, 405)


def challenge(world: BenchEnvironment) -> None:
    """Put a second version of card_fraud up as a canary for a tenth of the customers."""
    _register(world.settings, "card_fraud", world.model.parent / "card_fraud", "challenger")
    Registry(world.settings.tracking_uri).set_traffic("card_fraud", Desired(mode="canary", weight=10, stage="canary"))
