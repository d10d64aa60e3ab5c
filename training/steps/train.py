"""Fit one estimator, export it to ONNX, prove that both give the same scores, and log the run."""

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from training.adapters import datasets
from training.adapters.datasets import Dataset
from training.adapters.onnx_model import OnnxScorer, digest, write_artifact
from training.adapters.registry import REFERENCE, Run, Runs
from training.code import estimators_digest, training_code
from training.contract.artifact import ArtifactMetadata, Golden
from training.contract.errors import StepError
from training.contract.messages import TrainInputs, TrainResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.importance import permutation_importance
from training.domain.metrics import Ranking, Truth, threshold_at
from training.estimators import base
from training.settings import Settings
from training.workspace import share

log = logging.getLogger("perennial")

#: Largest difference between native and ONNX scores: float32 sums of a few hundred trees differ by less than 1e-6,
#: a row on the wrong side of one split by more.
PARITY_TOLERANCE = 1e-4
_GOLDEN_ROWS = 20
#: Distributions that fit and export.
_LIBRARIES = ("onnx", "scikit-learn", "torch")


def run(inputs: TrainInputs, settings: Settings) -> TrainResult:
    """Train on a dataset; the artifact goes to `<work>/<model>/artifacts/<fingerprint>/` and to the MLflow run.

    The same inputs again give the run that they gave before; one left unfinished is taken up. Raises DataContractError
    for features that are not finite or labels of one kind, StepError when the ONNX model scores otherwise than the
    native one, TransientError when MLflow does not answer.
    """
    spec = load_model_spec(inputs.model, settings.models_dir)
    dataset = Dataset(inputs.dataset_uri, spec)
    estimator = base.load(inputs.estimator)
    given = {**spec.training.estimators.get(inputs.estimator, {}), **inputs.parameters}
    parameters = base.parameters_for(inputs.estimator, estimator.DEFAULTS, given)
    fingerprint = _fingerprint(inputs, dataset.manifest.dataset_id, parameters, spec)
    folder = settings.scratch / spec.name / "artifacts" / fingerprint

    runs = Runs(settings.tracking_uri, spec.name, str(settings.home / "mlflow"))
    mlflow_run = runs.begin(inputs.estimator, fingerprint, _tags(inputs, dataset, spec, settings))
    if mlflow_run.result is not None:
        log.info("These inputs were trained on before, in run %s", mlflow_run.run_id)
        result = TrainResult.model_validate(mlflow_run.result)
        runs.fetch(result.run_id, result.digest, folder)
        return result.model_copy(update={"artifact_uri": share(settings, folder)})
    try:
        trained = _train(inputs, spec, dataset, estimator, parameters)
        write_artifact(folder, trained.content, trained.metadata)
        log.info("Artifact written to %s", folder)
        _log(runs, mlflow_run, inputs, spec, dataset, trained, folder)
    except BaseException:
        runs.fail(mlflow_run)
        raise
    result = TrainResult(
        estimator=inputs.estimator,
        run_id=mlflow_run.run_id,
        artifact_uri=share(settings, folder),
        digest=trained.metadata.digest,
        parity=trained.parity,
        device=trained.device,
        fit_seconds=round(trained.seconds, 3),
    )
    runs.finish(mlflow_run, result.model_dump(mode="json"))
    return result


@dataclass(frozen=True)
class _Trained:
    """A model and its showing on the holdout: `features` [n, d] and `scores` [n]; `counted` rows enter the metrics."""

    content: bytes
    metadata: ArtifactMetadata
    device: str
    seconds: float
    parity: float
    features: np.ndarray
    scores: np.ndarray
    counted: np.ndarray
    truth: Truth


def _train(
    inputs: TrainInputs, spec: ModelSpec, dataset: Dataset, estimator: base.Estimator, parameters: dict[str, Any]
) -> _Trained:
    manifest = dataset.manifest
    fitted, seconds = _fit(inputs, dataset, estimator, parameters)
    content, holdout = fitted.onnx(), dataset.holdout()
    features, counted = holdout.features(manifest.feature_names), holdout.evaluated
    base.check_finite(features, manifest.feature_names)
    scores = OnnxScorer(content).score(features)
    parity = prove_parity(fitted.scores(features), scores)
    log.info("ONNX equals the native model within %.1e on all %d holdout rows", parity, len(scores))
    truth = Truth.of(holdout.labels[counted], holdout.entities[counted], holdout.days[counted])
    metrics = Ranking(truth, scores[counted], spec.evaluation.k).measure()
    log.info("On %d holdout rows: %s", counted.sum(), metrics)
    metadata = ArtifactMetadata(
        model=spec.name,
        estimator=inputs.estimator,
        digest=digest(content),
        feature_service=manifest.feature_service,
        feature_names=manifest.feature_names,
        threshold=threshold_at(scores, spec.decision.alert_rate),
        golden=_golden(features, scores),
        dataset_id=manifest.dataset_id,
        as_of=manifest.as_of,
        train_days=manifest.train.days,
        holdout_days=manifest.holdout.days,
        table_versions=manifest.table_versions,
        holdout_metrics=metrics,
        parameters=parameters,
        config_hash=spec.config_hash,
    )
    return _Trained(content, metadata, fitted.device, seconds, parity, features, scores, counted, truth)


def _fit(
    inputs: TrainInputs, dataset: Dataset, estimator: base.Estimator, parameters: dict[str, Any]
) -> tuple[base.Fitted, float]:
    """The fitted estimator and the seconds that fitting took."""
    rows, names = dataset.train(), dataset.manifest.feature_names
    features, labels = rows.features(names), rows.labels
    base.check_training_data(features, labels, names)
    log.info("Fitting %s on %d rows, %d positive: %s", inputs.estimator, len(labels), labels.sum(), parameters)
    started = time.monotonic()
    fitted = estimator.fit(features, labels, parameters, inputs.seed)
    seconds = time.monotonic() - started
    log.info("Fitted in %.1f s on %s", seconds, fitted.device)
    return fitted, seconds


def _log(
    runs: Runs,
    mlflow_run: Run,
    inputs: TrainInputs,
    spec: ModelSpec,
    dataset: Dataset,
    trained: _Trained,
    folder: Path,
) -> None:
    """Everything about the run but that it is finished."""
    from training.adapters.plots import draw

    metadata, evaluation, names = trained.metadata, spec.evaluation, dataset.manifest.feature_names
    numbers: dict[str, float] = {str(name): value for name, value in metadata.holdout_metrics.items()}
    numbers |= {"parity": trained.parity, "threshold": metadata.threshold}
    runs.log(mlflow_run, {**metadata.parameters, "seed": inputs.seed}, numbers)
    # Another try may run elsewhere and take longer. A tag is replaced; a parameter cannot be, a metric is doubled.
    runs.tag(mlflow_run.run_id, {"device": trained.device, "fit_seconds": f"{trained.seconds:.3f}"})
    runs.log_dataset(mlflow_run, dataset.manifest)
    # Datasets may be deleted, and the lake's old versions too; the champion's reference lives as long as its run.
    with TemporaryDirectory() as kept:
        Path(kept, datasets.REFERENCE).write_bytes(dataset.reference())
        runs.log_files(mlflow_run.run_id, Path(kept), REFERENCE)
    importance = permutation_importance(
        OnnxScorer(trained.content).score,
        trained.features[trained.counted],
        trained.truth,
        names,
        evaluation.primary,
        evaluation.k,
        inputs.seed,
    )
    with TemporaryDirectory() as plots:
        draw(Path(plots), trained.truth.labels, trained.scores[trained.counted], importance, evaluation.primary)
        Path(plots, "feature_importance.json").write_text(json.dumps(importance, indent=2))
        runs.log_files(mlflow_run.run_id, Path(plots), "plots")
    requirements = [f"{package}=={version(package)}" for package in ("onnx", "onnxruntime", "numpy")]
    runs.log_model(mlflow_run, folder, trained.features, requirements)


def _fingerprint(inputs: TrainInputs, dataset_id: str, parameters: dict[str, Any], spec: ModelSpec) -> str:
    """What decides the model. The reason does not, nor where the dataset lies.

    Of the code it is the estimators' source and their libraries, not the commit: an edit that nobody committed must
    train anew, a commit that changes a page of the documentation must not.
    """
    libraries = {name: version(name) for name in _LIBRARIES}
    parts = [inputs.estimator, parameters, dataset_id, inputs.seed, spec.config_hash, estimators_digest(), libraries]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _tags(inputs: TrainInputs, dataset: Dataset, spec: ModelSpec, settings: Settings) -> dict[str, str]:
    manifest = dataset.manifest
    tags = {
        "estimator": inputs.estimator,
        "reason": inputs.reason,
        "dataset_id": manifest.dataset_id,
        "as_of": str(manifest.as_of),
        "train_days": str(manifest.train.days),
        "holdout_days": str(manifest.holdout.days),
        "config_hash": spec.config_hash,
        "git_sha": settings.git_sha or "",
        "training_code": training_code(settings, spec),
    }
    return tags | {f"table.{table}": str(number) for table, number in manifest.table_versions.items()}


def prove_parity(native: np.ndarray, onnx: np.ndarray) -> float:
    """The largest difference on the holdout. Raises StepError when it is above the tolerance."""
    differences = np.abs(native - onnx)
    largest = float(differences.max())
    if not largest <= PARITY_TOLERANCE:
        bad = np.flatnonzero(~(differences <= PARITY_TOLERANCE))
        raise StepError(
            f"The ONNX model scores {len(bad)} of {len(native)} holdout rows otherwise than the native one: largest "
            f"difference {largest:.2g}, tolerance {PARITY_TOLERANCE:.0e}, first rows {bad[:5].tolist()}",
            hint="Nothing was registered. Look at the export of this estimator in training/estimators/.",
        )
    return largest


def _golden(values: np.ndarray, scores: np.ndarray) -> Golden:
    """Holdout rows spread over the whole range of scores."""
    ranked = np.argsort(scores, kind="stable")
    chosen = ranked[np.linspace(0, len(ranked) - 1, min(_GOLDEN_ROWS, len(ranked))).astype(int)]
    return Golden(features=values[chosen].tolist(), scores=scores[chosen].tolist(), tolerance=PARITY_TOLERANCE)
