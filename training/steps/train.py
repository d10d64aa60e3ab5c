"""Fit one estimator, export it to ONNX, prove that both give the same scores, and log the run."""

import json
import logging
import time
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from training import storage
from training.adapters import datasets
from training.adapters.checkpoints import StoredCheckpoint
from training.adapters.datasets import Dataset
from training.adapters.onnx_model import OnnxScorer, digest, write_artifact
from training.adapters.processes import Processes
from training.adapters.registry import REFERENCE, Run, Runs
from training.code import estimators_digest, training_code
from training.contract.artifact import SCHEMA_VERSION, ArtifactMetadata, Golden
from training.contract.messages import TrainInputs, TrainResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.identity import fit_id
from training.domain.importance import permutation_importance
from training.domain.metrics import EvaluationSet, Ranking, threshold_at
from training.domain.parity import PARITY_TOLERANCE, made_rows, prove_parity
from training.estimators import base
from training.settings import StateSettings
from training.workspace import share

log = logging.getLogger("perennial")

_GOLDEN_ROWS = 20


def run(inputs: TrainInputs, settings: StateSettings) -> TrainResult:
    """Train on a dataset; the artifact goes to `<work>/<model>/artifacts/<fingerprint>/` and to the MLflow run.

    The same inputs again give the run that they gave before; one left unfinished is taken up, and so is its fit, from
    the checkpoint in `<work>/<model>/checkpoints/<fingerprint>/`, which is kept until the run is finished. Raises
    DataContractError for features that are not finite or labels of one kind, StepError when the ONNX model scores
    otherwise than the native one, TransientError when MLflow does not answer.
    """
    job = _Job.of(inputs, settings)
    fingerprint, spec = job.fingerprint, job.spec
    folder = settings.scratch / spec.name / "artifacts" / fingerprint
    checkpoint = StoredCheckpoint(storage.join(settings.work, spec.name, "checkpoints", fingerprint))
    runs = Runs(settings.tracking_uri, spec.name, str(settings.home / "mlflow"))
    mlflow_run = runs.begin(inputs.estimator, fingerprint, _tags(job, settings))
    if mlflow_run.result is not None:
        log.info("These inputs were trained on before, in run %s", mlflow_run.run_id)
        with job.processes.together(proceed=False):
            result = TrainResult.model_validate(mlflow_run.result)
        runs.fetch(result.run_id, result.digest, folder)
        checkpoint.remove()
        return result.model_copy(update={"artifact_uri": share(settings, folder)})
    try:
        trained = _train(job, checkpoint)
        write_artifact(folder, trained.content, trained.metadata)
        log.info("Artifact written to %s", folder)
        _log(runs, mlflow_run, job, trained, folder)
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
    checkpoint.remove()
    return result


def assist(inputs: TrainInputs, settings: StateSettings) -> None:
    """A further process of a distributed fit: it computes gradients on its share of every batch, and nothing else.

    It waits until the first process has found the inputs sound and the fit not yet done. When the estimator is not one
    that several processes fit, the first fits it alone.
    """
    job = _Job.of(inputs, settings)
    if job.processes.size > 1:
        with job.processes.together() as proceed:
            if proceed:
                _fit(job, _training_data(job), base.NO_CHECKPOINT)


@dataclass(frozen=True)
class _Job:
    """What is trained, on what, and by which processes."""

    inputs: TrainInputs
    spec: ModelSpec
    dataset: Dataset
    estimator: base.Estimator
    parameters: dict[str, Any]
    processes: Processes

    @classmethod
    def of(cls, inputs: TrainInputs, settings: StateSettings) -> "_Job":
        spec = load_model_spec(inputs.model, settings.models_dir)
        estimator = base.load(inputs.estimator)
        given = {**spec.training.estimators.get(inputs.estimator, {}), **inputs.parameters}
        return cls(
            inputs,
            spec,
            Dataset(inputs.dataset_uri, spec),
            estimator,
            base.parameters_for(inputs.estimator, estimator, "binary", given),
            Processes.here() if estimator.DISTRIBUTED else Processes(),
        )

    @property
    def fingerprint(self) -> str:
        """What identifies the fit: two jobs with the same one give the same model."""
        return fit_id(
            self.spec,
            self.dataset.manifest.dataset_id,
            self.inputs.estimator,
            self.parameters,
            self.inputs.seed,
            estimators_digest([self.inputs.estimator]),
            {name: version(name) for name in self.estimator.LIBRARIES},
            SCHEMA_VERSION,
        )


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
    truth: EvaluationSet


def _train(job: _Job, checkpoint: base.Checkpoint) -> _Trained:
    spec, manifest = job.spec, job.dataset.manifest
    data = _training_data(job)
    with job.processes.together():
        fitted, seconds = _fit(job, data, checkpoint)
    content, holdout = fitted.onnx(), job.dataset.holdout()
    features, counted = holdout.features(data.columns), holdout.evaluated
    base.check_features(features, data.columns)
    scorer = OnnxScorer(content)
    scores = scorer.score(features)
    parity = prove_parity(fitted.outputs(features), scores)
    if len(odd := made_rows(features, data.columns)):
        parity = max(parity, prove_parity(fitted.outputs(odd), scorer.score(odd)))
    log.info("ONNX equals the native model within %.1e on all %d holdout rows", parity, len(scores))
    truth = EvaluationSet.of(holdout.labels[counted], holdout.entities[counted], holdout.days[counted])
    metrics = Ranking(truth, scores[counted], spec.evaluation.k).measure()
    log.info("On the %d of %d holdout rows that evaluation counts: %s", counted.sum(), len(counted), metrics)
    metadata = ArtifactMetadata(
        schema_version=SCHEMA_VERSION,
        features=job.dataset.definitions().needed_for(manifest.feature_names),
        model=spec.name,
        estimator=job.inputs.estimator,
        digest=digest(content),
        feature_service=manifest.feature_service,
        feature_names=manifest.feature_names,
        threshold=threshold_at(scores, spec.decision.alert_rate),
        golden=_golden(features, scores, job.dataset.requests()),
        dataset_id=manifest.dataset_id,
        as_of=manifest.as_of,
        train_days=manifest.train.days,
        holdout_days=manifest.holdout.days,
        table_versions=manifest.table_versions,
        holdout_metrics=metrics,
        parameters=job.parameters,
        config_hash=spec.config_hash,
    )
    return _Trained(content, metadata, fitted.device, seconds, parity, features, scores, counted, truth)


def _training_data(job: _Job) -> base.TrainingData:
    """The training rows. Raises DataContractError when no model can be fitted on them."""
    rows, columns = job.dataset.train(), job.dataset.columns()
    data = base.TrainingData(rows.features(columns), rows.labels, columns, "binary")
    data.check()
    return data


def _fit(job: _Job, data: base.TrainingData, checkpoint: base.Checkpoint) -> tuple[base.Fitted, float]:
    """The fitted estimator and the seconds that fitting took: those of the last try, when it was resumed."""
    inputs, parameters, labels = job.inputs, job.parameters, data.labels
    log.info("Fitting %s on %d rows, %d positive: %s", inputs.estimator, len(labels), labels.sum(), parameters)
    started = time.monotonic()
    fitted = job.estimator.fit(data, parameters, inputs.seed, checkpoint)
    seconds = time.monotonic() - started
    log.info("Fitted in %.1f s on %s", seconds, fitted.device)
    return fitted, seconds


def _log(runs: Runs, mlflow_run: Run, job: _Job, trained: _Trained, folder: Path) -> None:
    """Everything about the run but that it is finished."""
    from training.adapters.plots import draw

    metadata, evaluation, dataset, seed = trained.metadata, job.spec.evaluation, job.dataset, job.inputs.seed
    numbers: dict[str, float] = {str(name): value for name, value in metadata.holdout_metrics.items()}
    numbers |= {"parity": trained.parity, "threshold": metadata.threshold}
    runs.log(mlflow_run, {**metadata.parameters, "seed": seed}, numbers)
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
        dataset.manifest.feature_names,
        evaluation.primary,
        evaluation.k,
        seed,
    )
    with TemporaryDirectory() as plots:
        draw(Path(plots), trained.truth.labels, trained.scores[trained.counted], importance, evaluation.primary)
        Path(plots, "feature_importance.json").write_text(json.dumps(importance, indent=2))
        runs.log_files(mlflow_run.run_id, Path(plots), "plots")
    requirements = [f"{package}=={version(package)}" for package in ("onnx", "onnxruntime", "numpy")]
    runs.log_model(mlflow_run, folder, trained.features, requirements)


def _tags(job: _Job, settings: StateSettings) -> dict[str, str]:
    manifest = job.dataset.manifest
    tags = {
        "estimator": job.inputs.estimator,
        "reason": job.inputs.reason,
        "dataset_id": manifest.dataset_id,
        "as_of": str(manifest.as_of),
        "train_days": str(manifest.train.days),
        "holdout_days": str(manifest.holdout.days),
        "config_hash": job.spec.config_hash,
        "git_sha": settings.git_sha or "",
        "training_code": training_code(settings, job.spec),
    }
    return tags | {f"table.{table}": str(number) for table, number in manifest.table_versions.items()}


def _golden(values: np.ndarray, scores: np.ndarray, requests: pa.Table) -> Golden:
    """Holdout rows spread over the whole range of scores, with the events and feature rows that they were made of."""
    ranked = np.argsort(scores, kind="stable")
    chosen = ranked[np.linspace(0, len(ranked) - 1, min(_GOLDEN_ROWS, len(ranked))).astype(int)]
    made_of = requests.take(chosen).to_pylist()
    return Golden(
        features=[[None if np.isnan(value) else value for value in row] for row in values[chosen].tolist()],
        scores=scores[chosen].tolist(),
        tolerance=PARITY_TOLERANCE,
        events=[{name: _json(value) for name, value in row["event"].items()} for row in made_of],
        batch=[row["batch"] or {} for row in made_of],
    )


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
