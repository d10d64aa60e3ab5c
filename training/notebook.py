"""The data of the loop as pandas DataFrames, for notebooks and scripts. Importable as `perennial`.

Everything here only reads. The settings are those of the environment (`CT_*`), as for a step; `make up` and `make demo`
keep their state in `.perennial`. docs/notebook.md shows how to use it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.adapters.features import Features
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.ledger import Entry, Ledger
from training.adapters.logged_predictions import Predictions
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry
from training.adapters.tables import Events, Labels
from training.contract.base import Days
from training.contract.errors import DataContractError, InputError
from training.contract.messages import DatasetInputs, DatasetResult, Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec, model_names
from training.contract.predictions import SHADOW, Explanation
from training.domain.explanation import explain
from training.domain.frames import LABEL, REPORTED_AT
from training.settings import StateSettings, load_settings
from training.signing import artifact_check
from training.snapshots import resolve


@dataclass(frozen=True)
class LoadedDataset:
    """What the step `dataset` makes: the rows to fit on, those to measure on, and their description."""

    train: pd.DataFrame
    holdout: pd.DataFrame
    manifest: DatasetResult


@dataclass(frozen=True)
class ExplainedDecision:
    """Why an event got its prediction. `print` shows it as text."""

    model: str
    #: The row of the prediction log: outputs, decision, role, version, times.
    prediction: dict[str, Any]
    event: dict[str, Any]
    #: Feature → the value that the model was given.
    features: dict[str, float]
    #: What each feature adds to the base score; None when the artifact of the version is gone.
    explanation: Explanation | None
    #: The aliases that the version has now.
    aliases: tuple[str, ...]
    #: The ledger's entries about the version until the prediction, oldest first: why it served.
    history: tuple[Entry, ...]

    def __str__(self) -> str:
        ours = self.prediction
        now = ", ".join(self.aliases) or "no alias"
        lines = [
            f"{self.model}: prediction {ours['prediction_id']}, made {ours['predicted_at']:%Y-%m-%d %H:%M:%S} UTC",
            f"  version {ours['model_version']} answered as {ours['role']}; now: {now}",
            f"  outputs {ours['outputs']}, decision {ours['decision'] or 'none'}",
            f"  event {self.event}",
        ]
        if ours["features_defaulted"]:
            lines.append("  some features were defaults")
        if self.explanation is not None:
            lines.append(f"  {self.explanation['output']} is {self.explanation['base_score']:.4g} on average, and here")
            of = self.explanation["contributions"]
            lines += [f"    {of[n]:+.4g}  {n} = {self.features[n]:g}" for n in sorted(of, key=lambda n: -abs(of[n]))]
        lines += [f"  {entry.at:%Y-%m-%d %H:%M} {entry.kind}: {entry.body}" for entry in self.history]
        return "\n".join(lines)


def load_events(
    model: str, as_of: date | None = None, days: int = 28, settings: StateSettings | None = None
) -> pd.DataFrame:
    """The events of the `days` days before `as_of` (None: the day after the newest) with their labels, in time order.

    The label is the one that was known at the start of `as_of`, under its own name, and missing where none was known;
    `_reported_at` says when it was reported. Raises InputError when nothing has landed.
    """
    spec, settings = _spec(model, settings)
    return _events(spec, _snapshot(spec, settings, as_of), days, settings)


def load_features(
    model: str, as_of: date | None = None, days: int = 28, settings: StateSettings | None = None
) -> pd.DataFrame:
    """As `load_events`, with the features of the model as each event would have had them at its time (float32, text).

    Raises InputError when nothing has landed, or feature tables are missing.
    """
    spec, settings = _spec(model, settings)
    snapshot = _snapshot(spec, settings, as_of)
    events = _events(spec, snapshot, days, settings)
    if events.empty:
        raise InputError(f"{spec.source.name} has no events in the {days} days before {snapshot.as_of}")
    return Features(settings, spec).historical(events, snapshot.table_versions)


def load_dataset(model: str, as_of: date | None = None, settings: StateSettings | None = None) -> LoadedDataset:
    """The training and the holdout rows that a training run as of that day gets, with the same windows and checks.

    `as_of` None: the day after the newest label. Raises DataContractError as the step `dataset` does.
    """
    from training.steps import dataset

    spec, settings = _spec(model, settings)
    with tempfile.TemporaryDirectory() as folder:
        apart = type(settings)(**settings.model_dump() | {"work_uri": folder})
        made = dataset.run(DatasetInputs(model=spec.name, as_of=as_of), apart)
        return LoadedDataset(pd.read_parquet(made.train.uri), pd.read_parquet(made.holdout.uri), made)


def explain_decision(
    prediction_id: str, model: str | None = None, settings: StateSettings | None = None
) -> ExplainedDecision:
    """What the model saw of the event, what each feature added, which version decided, and why that one served.

    Reads the prediction log, the registry and the ledger. `model` None: look in the logs of all models.
    Raises InputError when no log has this prediction; a prediction reaches the log within a minute of its answer.
    """
    settings = settings or load_settings()
    names = [model] if model else model_names(settings.models_dir)
    for name in names:
        spec, _ = _spec(name, settings)
        lake = Lake(settings.lake, spec.source.name, name)
        rows = Predictions(lake, spec, lake.version(PREDICTIONS)).of_id(prediction_id)
        if answers := [row for row in rows if row["role"] != SHADOW]:
            return _explained(spec, answers[0], settings)
    hint = "Answers are written to the lake within a minute. Check the id, and that CT_HOME names the right state."
    raise InputError(f"No prediction {prediction_id!r} in the logs of {', '.join(names)} in {settings.lake}", hint)


def _explained(spec: ModelSpec, row: dict[str, Any], settings: StateSettings) -> ExplainedDecision:
    event, features = row.pop("event"), dict(row.pop("features") or ())
    row["outputs"] = dict(row["outputs"])
    version = Registry(settings.tracking_uri).get(spec.name, row["model_version"])
    entries = [
        entry
        for entry in Ledger(settings.ledger).entries(spec.name)
        if entry.body.get("version") == version.version and entry.at <= row["predicted_at"]
    ]
    explanation = _contributions(spec, version.version, features, settings)
    aliases = tuple(sorted(version.aliases))
    return ExplainedDecision(spec.name, row, event, features, explanation, aliases, tuple(entries))


def _contributions(
    spec: ModelSpec, version: int, features: dict[str, float], settings: StateSettings
) -> Explanation | None:
    registry = Registry(settings.tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        try:
            limit = settings.artifact_maximum_mib
            check = artifact_check(spec.name, version, settings)
            artifact = registry.download(registry.get(spec.name, version), Path(folder, "served"), limit, check)
            model = OnnxModel.load(artifact, maximum_mib=limit)
        except (InputError, DataContractError):
            return None
        names: Sequence[str] = model.metadata.feature_names
        if not features.keys() >= set(names):
            return None
        values = np.array([features[name] for name in names], np.float32)
        return explain(model.score, model.task, model.metadata, values)


def _events(spec: ModelSpec, snapshot: Snapshot, days: int, settings: StateSettings) -> pd.DataFrame:
    source = spec.source
    lake, versions = Lake(settings.lake, source.name, spec.name), snapshot.table_versions
    assert snapshot.as_of is not None
    events = Events(lake, spec.source, versions[EVENTS]).within(Days.ending(snapshot.as_of, days))
    known = Labels(lake, spec, versions.get(spec.label_spec.feed)).known_at(snapshot.as_of, events[source.id_column])
    found = events.merge(known[[source.id_column, LABEL, REPORTED_AT]], on=source.id_column, how="left")
    found = found.rename(columns={LABEL: spec.label})
    return found.sort_values([source.events.time_column, source.id_column], ignore_index=True)


def _snapshot(spec: ModelSpec, settings: StateSettings, as_of: date | None) -> Snapshot:
    found = resolve(spec, settings, as_of, champion=False)
    if found.as_of is None or EVENTS not in found.table_versions:
        hint = "Land events and wait for the data runs, or set CT_HOME to the folder with the state."
        raise InputError(f"No events of {spec.source.name} in {settings.lake}", hint)
    return found


def _spec(model: str, settings: StateSettings | None) -> tuple[ModelSpec, StateSettings]:
    settings = settings or load_settings()
    return load_model_spec(model, settings.models_dir, settings.feature_repo), settings
