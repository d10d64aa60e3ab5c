"""Fit one estimator, export it to ONNX, prove that both give the same scores, and log the run."""

import json
import logging
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training import storage
from training.adapters import datasets
from training.adapters.checkpoints import StoredCheckpoint
from training.adapters.holdout_rows import HOLDOUT_ROWS, MAXIMUM_ROWS, HoldoutRows, write_holdout_rows
from training.adapters.onnx_model import OnnxScorer, digest, write_artifact
from training.adapters.registry import REFERENCE, SERVED, Run, Runs
from training.contract.artifact import SCHEMA_VERSION, ArtifactMetadata, Golden
from training.contract.messages import TrainInputs, TrainResult
from training.contract.recipe import RECIPE_FILE, RECIPE_FOLDER
from training.domain.change import daily_losses
from training.domain.comparison import representatives
from training.domain.evaluation_set import EvaluationSet, clusterings
from training.domain.importance import importance_chart, permutation_importance
from training.domain.metrics import standard_error
from training.domain.parity import made_rows, prove_parity, tolerance
from training.domain.task_kind import ServedTask
from training.estimators import base
from training.fit_job import SEARCH, TRAINING, FitJob, Spent, TrainingRows
from training.recipe import bill_of_materials, recipe_of
from training.sbom import SBOM_FILE
from training.settings import StateSettings
from training.workspace import share

log = logging.getLogger("perennial")

_GOLDEN_ROWS = 20


def run(inputs: TrainInputs, settings: StateSettings) -> TrainResult:
    """Train on a dataset; the artifact goes to `<work>/<model>/artifacts/<fingerprint>/` and to the MLflow run.

    The same inputs again give the run that they gave before; an unfinished one is resumed, and so is its fit, from the
    checkpoint in `<work>/<model>/checkpoints/<fingerprint>/`, which is kept until the run is finished. So is a search
    for parameters, from `<work>/<model>/searches/<fingerprint>/`; a search in parts is the step `search`, whose results
    come with the inputs. Raises ConfigError for a search by several processes, DataContractError for features that are
    not finite or labels that the task cannot learn, StepError when the ONNX model's scores differ from those of the
    native one, TransientError when MLflow does not answer.
    """
    job = FitJob.of(inputs, settings)
    fingerprint, spec = job.fingerprint, job.spec
    folder = settings.scratch / spec.name / "artifacts" / fingerprint
    checkpoint = StoredCheckpoint(storage.join(settings.work, spec.name, "checkpoints", fingerprint))
    trials = StoredCheckpoint(storage.join(settings.work, spec.name, "searches", fingerprint), "trials")
    runs = Runs(settings.tracking_uri, spec.name, str(settings.home / "mlflow"))
    mlflow_run = runs.begin(f"{inputs.estimator} {inputs.window}".strip(), fingerprint, job.tags(settings))
    if mlflow_run.result is not None:
        log.info("These inputs were trained on before, in run %s", mlflow_run.run_id)
        with job.processes.together(proceed=False):
            result = TrainResult.model_validate(mlflow_run.result)
        runs.fetch(result.run_id, result.digest, folder, settings.artifact_maximum_mib)
        checkpoint.remove()
        trials.remove()
        return result.model_copy(update={"artifact_uri": share(settings, folder)})
    try:
        began, rows = Spent.now(), TrainingRows.of(job)
        search = elsewhere = Spent(0, 0)
        if job.search:
            from training.tuning import best_parameters, spent_elsewhere

            before = Spent.now()
            searching = job.searching
            searched = rows if searching.window == job.window else TrainingRows.of(searching)
            best = best_parameters(searching, searched, trials, runs, mlflow_run, settings)
            elsewhere = spent_elsewhere(job, runs)
            search = Spent.now().since(before) + elsewhere
            job = replace(job, parameters={**job.parameters, **best})
        trained = _train(job, rows, checkpoint)
        write_artifact(folder, trained.content, trained.metadata)
        log.info("Artifact written to %s", folder)
        took = {TRAINING: Spent.now().since(began) + elsewhere} | ({SEARCH: search} if job.search else {})
        for what, spent in took.items():
            runs.tag(mlflow_run.run_id, spent.tags(what, job.processes.size, trained.device))
        _log(runs, mlflow_run, job, trained, folder, settings)
    except BaseException:
        runs.fail(mlflow_run)
        raise
    result = TrainResult(
        estimator=inputs.estimator,
        window=inputs.window,
        run_id=mlflow_run.run_id,
        artifact_uri=share(settings, folder),
        digest=trained.metadata.digest,
        parity=trained.parity,
        device=trained.device,
        fit_seconds=round(trained.seconds, 3),
    )
    runs.finish(mlflow_run, result.model_dump(mode="json"))
    checkpoint.remove()
    trials.remove()
    return result


def assist(inputs: TrainInputs, settings: StateSettings) -> None:
    """A further process of a distributed fit: it computes gradients on its share of every batch, and nothing else.

    It waits until the first process has found the inputs sound and the fit not yet done. When the estimator is not one
    that several processes fit, the first fits it alone.
    """
    job = FitJob.of(inputs, settings)
    if job.processes.size > 1:
        with job.processes.together() as proceed:
            if proceed:
                job.fit(TrainingRows.of(job), base.NO_CHECKPOINT)


@dataclass(frozen=True)
class _Trained:
    """A model, its task, and the rows of the holdout that count, with their truth."""

    content: bytes
    metadata: ArtifactMetadata
    device: str
    seconds: float
    parity: float
    served: ServedTask
    holdout: HoldoutRows
    truth: EvaluationSet


def _train(job: FitJob, rows: TrainingRows, checkpoint: base.Checkpoint) -> _Trained:
    spec, manifest, task = job.spec, job.dataset.manifest, job.task
    with job.processes.together():
        fitted, seconds = job.fit(rows, checkpoint)
    content, holdout = fitted.onnx(), job.dataset.holdout()
    features, counted, entities = holdout.features(rows.data.columns), holdout.evaluated, holdout.entities
    base.check_features(features, rows.data.columns)
    scorer = OnnxScorer(content)
    scores = scorer.score(features)
    parity = prove_parity(fitted.outputs(features), scores, task.target)
    if len(odd := made_rows(features, rows.data.columns)):
        parity = max(parity, prove_parity(fitted.outputs(odd), scorer.score(odd), task.target))
    log.info("ONNX equals the native model within %.1e on all %d holdout rows", parity, len(scores))
    served = task.fit(rows.fitting(scores, scorer.score))
    days, of_entities = holdout.days[counted], None if entities is None else entities[counted]
    truth = task.evaluation_set(holdout.labels[counted], of_entities, days, holdout.times[counted])
    scored = task.scored(truth, scores[counted], served)
    metrics, primary = scored.measure(), task.evaluation.primary
    requests = job.dataset.requests()
    made_of = requests.filter(pa.array(counted))["event"]
    of_kinds = {name: pc.struct_field(made_of, name).to_pandas() for name in spec.entity_columns}
    drawn = clusterings(list(of_kinds.values()), days, holdout.times[counted])
    error = standard_error(scored, primary, drawn, job.inputs.seed)
    log.info("On the %d of %d holdout rows that evaluation counts: %s", counted.sum(), len(counted), metrics)
    log.info("Standard error of %s: %s", primary, "unknown" if error is None else f"{error:.4f}")
    metadata = ArtifactMetadata(
        schema_version=SCHEMA_VERSION,
        features=job.dataset.definitions().needed_for(manifest.feature_names),
        model=spec.name,
        estimator=job.inputs.estimator,
        digest=digest(content),
        feature_service=manifest.feature_service,
        feature_names=manifest.feature_names,
        task=served.stored(),
        outputs=list(served.output_names),
        holdout_outputs=representatives(served.monitored(scores)),
        golden=_golden(features, scores, requests, tolerance(scores, task.target)),
        dataset_id=manifest.dataset_id,
        as_of=manifest.as_of,
        window=job.inputs.window,
        change=manifest.change,
        train_days=job.window.days,
        known_since=manifest.train.days.start,
        holdout_days=manifest.holdout.days,
        table_versions=manifest.table_versions,
        holdout_metrics=metrics,
        holdout_standard_errors={} if error is None else {primary: error},
        holdout_losses={} if scored.losses is None else daily_losses(days, scored.losses),
        holdout_counts=task.counts(truth.labels),
        parameters=job.parameters,
        config_hash=spec.config_hash,
    )
    ages = {name: values[counted] for name, values in holdout.ages.items()}
    kept = HoldoutRows(features[counted], scores[counted], truth.labels, of_kinds, holdout.times[counted], ages)
    return _Trained(content, metadata, fitted.device, seconds, parity, served, kept, truth)


def _log(runs: Runs, mlflow_run: Run, job: FitJob, trained: _Trained, folder: Path, settings: StateSettings) -> None:
    """Everything about the run but that it is finished."""
    metadata, dataset, seed = trained.metadata, job.dataset, job.inputs.seed
    numbers: dict[str, float] = {str(name): value for name, value in metadata.holdout_metrics.items()}
    numbers |= {name: value for name, value in metadata.task.items() if isinstance(value, float)}
    numbers |= {"parity": trained.parity}
    runs.log(mlflow_run, {**metadata.parameters, "seed": seed}, numbers)
    # Another try may run elsewhere and take longer. A tag is replaced; a parameter cannot be, a metric is doubled.
    runs.tag(mlflow_run.run_id, {"device": trained.device, "fit_seconds": f"{trained.seconds:.3f}"})
    runs.log_dataset(mlflow_run, dataset.manifest)
    # Datasets may be deleted, and the lake's old versions too; the champion's reference lives as long as its run.
    with TemporaryDirectory() as kept:
        Path(kept, datasets.REFERENCE).write_bytes(dataset.reference(job.inputs.window))
        holdout = trained.holdout.sample(MAXIMUM_ROWS, seed)
        write_holdout_rows(Path(kept, HOLDOUT_ROWS), holdout, dataset.manifest.feature_names)
        runs.log_files(mlflow_run.run_id, Path(kept), REFERENCE)
    if settings.may_serve:
        _log_for_people(runs, mlflow_run, job, trained, folder, settings)
    runs.log_files(mlflow_run.run_id, folder, SERVED)


def _log_for_people(
    runs: Runs, mlflow_run: Run, job: FitJob, trained: _Trained, folder: Path, settings: StateSettings
) -> None:
    """The recipe, pictures, and the model as MLflow itself loads it."""
    from training.adapters.plots import draw

    names, seed, task = job.dataset.manifest.feature_names, job.inputs.seed, job.task
    with TemporaryDirectory() as kept:
        Path(kept, RECIPE_FILE).write_text(recipe_of(job, trained.device, settings).model_dump_json(indent=2))
        Path(kept, SBOM_FILE).write_text(bill_of_materials())
        runs.log_files(mlflow_run.run_id, Path(kept), RECIPE_FOLDER)
    score, features = OnnxScorer(trained.content).score, trained.holdout.features
    importance = permutation_importance(score, features, trained.truth, names, task, trained.served, seed)
    charts = [
        *task.charts(trained.truth.labels, trained.holdout.scores, trained.served),
        importance_chart(importance, task.evaluation.primary),
    ]
    with TemporaryDirectory() as plots:
        draw(Path(plots), charts)
        Path(plots, "feature_importance.json").write_text(json.dumps(importance, indent=2))
        runs.log_files(mlflow_run.run_id, Path(plots), "plots")
    requirements = [f"{package}=={version(package)}" for package in ("onnx", "onnxruntime", "numpy")]
    runs.log_model(mlflow_run, folder, features, requirements)


def _golden(values: np.ndarray, scores: np.ndarray, requests: pa.Table, allowed: float) -> Golden:
    """Holdout rows spread over the whole range of scores, with the events and feature rows that they were made of."""
    ranked = np.argsort(scores if scores.ndim == 1 else scores.max(axis=1), kind="stable")
    chosen = ranked[np.linspace(0, len(ranked) - 1, min(_GOLDEN_ROWS, len(ranked))).astype(int)]
    made_of = requests.take(chosen).to_pylist()
    return Golden(
        features=[[None if np.isnan(value) else value for value in row] for row in values[chosen].tolist()],
        scores=scores[chosen].tolist(),
        tolerance=allowed,
        events=[{name: _json(value) for name, value in row["event"].items()} for row in made_of],
        batch=[row["batch"] or {} for row in made_of],
    )


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
