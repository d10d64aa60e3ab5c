"""Measure the champion's predictions against the labels that have come in since."""

import logging
from datetime import date
from typing import TYPE_CHECKING

from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.tables import Events, Labels, Predictions
from training.contract.artifact import METADATA_FILE, ArtifactMetadata
from training.contract.base import Days, TableVersions, midnight
from training.contract.errors import DataContractError
from training.contract.messages import Degradation, Metrics, PerformanceInputs, PerformanceResult, Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.evaluation_set import EvaluationSet, clusterings
from training.domain.frames import LABEL, LOGGED_OUTPUTS, are_finite, logged_outputs
from training.domain.looks import look_number
from training.domain.metrics import standard_error
from training.domain.performance import Measured, degradation, first_made, matured_window
from training.domain.task_kind import served_task, task_of
from training.settings import StateSettings
from training.snapshots import snapshot_of
from training.workspace import served_artifact

if TYPE_CHECKING:
    import pandas as pd

    from training.domain.resampling import Clusters
    from training.domain.task_kind import Scored, TaskKind

log = logging.getLogger("perennial")


def run(inputs: PerformanceInputs, settings: StateSettings) -> PerformanceResult:
    """Join the champion's logged predictions with the labels known at the snapshot's horizon, for the days whose labels
    have all been reported by then.

    They are measured like the holdout, so that the two can be compared: entities already known as positive are left out
    where the spec says so. Predictions that are not finite numbers are left out and counted. The metrics are logged to
    the champion's run as of the horizon; run again, nothing doubles.
    Raises InputError for an unknown version of the model or of a table, TransientError when MLflow does not answer.
    """
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    snapshot = snapshot_of(inputs, spec, settings)
    if snapshot.champion_version is None:
        log.info("No champion: nothing to measure")
        return PerformanceResult(outcome="no champion", snapshot=snapshot)
    if snapshot.as_of is None:
        log.info("No knowledge horizon: there is no data yet")
        return PerformanceResult(outcome="no predictions", snapshot=snapshot)
    window = matured_window(snapshot.as_of, spec.monitoring.window_days, spec.label_spec.delay_days)
    measured = _measured(snapshot, snapshot.as_of, snapshot.champion_version, window, spec, settings)
    return measured.model_copy(update={"window": window, "snapshot": snapshot})


def _measured(
    snapshot: Snapshot, as_of: date, champion_version: int, window: Days, spec: ModelSpec, settings: StateSettings
) -> PerformanceResult:
    from training.adapters.registry import Registry
    from training.adapters.registry.watch import record

    lake, versions = Lake(settings.lake, spec.source.name, spec.name), snapshot.table_versions
    if not {PREDICTIONS, *spec.feed_names} <= versions.keys():
        log.info("There are no predictions or no labels in %s", lake.uri(""))
        return PerformanceResult(outcome="no predictions")
    logged = Predictions(lake, spec, versions[PREDICTIONS])
    champion = Registry(settings.tracking_uri).get(spec.name, champion_version)
    predictions = logged.answered(window, _columns(spec), champion.version, outputs=True, digest=champion.digest)
    if predictions.empty:
        log.info("Version %d made no prediction for %s in %s", champion_version, window, lake.uri(PREDICTIONS))
        return PerformanceResult(outcome="no predictions")
    artifact = served_artifact(settings, champion) / METADATA_FILE
    metadata = ArtifactMetadata.model_validate_json(artifact.read_bytes())
    reference = metadata.holdout_metrics
    try:
        metadata.check_kind(spec.task.kind)
    except DataContractError as error:
        log.warning("Version %d cannot be measured: %s", champion_version, error.message)
        return PerformanceResult(outcome="too few labels", lacks=error.message, reference=reference)
    task, rows = task_of(spec), _counted(predictions, as_of, window, metadata, versions, lake, spec)
    measurable = are_finite(rows[LOGGED_OUTPUTS])
    rows, not_finite = rows[measurable], int((~measurable).sum())
    if not_finite:
        log.warning("%d predictions with a label are not finite numbers: left out", not_finite)
    truth = task.truth(rows[LABEL].to_numpy())
    counts, lacks = task.counts(truth), task.lacks_to_measure(truth, spec.monitoring.minimum_class_rows)
    log.info("%d predictions, %d with a label (%s), in %s", len(predictions), len(rows), counts, window)
    result = PerformanceResult(
        outcome="measured",
        rows=len(rows),
        not_finite=not_finite,
        counts=counts,
        lacks=lacks,
        reference=reference,
        reference_counts=metadata.holdout_counts,
    )
    if lacks:
        log.info("Too few labels: %s", lacks)
        return result.model_copy(update={"outcome": "too few labels"})
    outputs = logged_outputs(rows[LOGGED_OUTPUTS], metadata.outputs)
    times = rows[spec.source.events.time_column]
    entity = spec.evaluation.entity
    served, days = served_task(metadata.task), times.dt.floor("D")
    scored = task.scored(
        EvaluationSet.of(truth, None if entity is None else rows[entity], days, times), served.scores(outputs), served
    )
    current: Metrics = scored.measure()
    for name, value in current.items():
        log.info("  %-22s %.4f, on the holdout %.4f", name, value, reference.get(name, float("nan")))
    _log_shares(counts, metadata.holdout_counts)
    shares = {f"live/share/{name}": count / len(rows) for name, count in counts.items()}
    record(settings.tracking_uri, champion, {f"live/{name}": value for name, value in current.items()} | shares, as_of)
    drawn = clusterings([rows[name] for name in spec.entity_columns], days, times)
    test = _tested(scored, drawn, current, window, metadata, task)
    return result.model_copy(update={"current": current, "test": test, "degraded": bool(test and test.degraded)})


def _log_shares(counts: dict[str, int], before: dict[str, int]) -> None:
    """How common each class is: a change of that is not one of the model's quality, though metrics may follow it."""
    for name, count in counts.items():
        was = f", on the holdout {before.get(name, 0) / sum(before.values()):.2%}" if before else ""
        log.info("  share of %-13s %.2f%%%s", name, 100 * count / sum(counts.values()), was)


def _tested(
    scored: "Scored",
    drawn: "list[Clusters]",
    current: Metrics,
    window: Days,
    metadata: ArtifactMetadata,
    task: "TaskKind",
) -> Degradation | None:
    """The test of the primary metric; None when it is not known of both, or chance cannot be estimated."""
    spec, primary = task.spec, task.evaluation.primary
    if primary not in current or primary not in metadata.holdout_metrics:
        log.warning("%s is not measured on both the window and the holdout: not compared", primary)
        return None
    error = standard_error(scored, primary, drawn, spec.training.seed)
    if error is None:
        described = "; ".join(each.described for each in drawn) or "nothing"
        log.warning("Not compared with the holdout, as chance cannot be estimated: the bootstrap draws %s", described)
        return None
    now = Measured(current[primary], error)
    before = Measured(metadata.holdout_metrics[primary], metadata.holdout_standard_errors.get(primary))
    look = look_number(window, metadata.holdout_days, spec.monitoring.window_days)
    test = degradation(now, before, primary, task.rules[primary], look, spec.monitoring)
    log.info("%s: %s", "DEGRADED" if test and test.degraded else "Not degraded", test)
    return test


def _counted(
    predictions: "pd.DataFrame",
    as_of: date,
    window: Days,
    metadata: ArtifactMetadata,
    versions: TableVersions,
    lake: Lake,
    spec: ModelSpec,
) -> "pd.DataFrame":
    """The first prediction for each event that evaluation counts, with its label as known at `as_of`.

    Events of the days that the version was trained on are left out: it can only have scored them in batch.
    """
    import pandas as pd

    from training.domain.labels import known_before, labelled

    # Positives make their entity known for as long back as in the holdout: longer, and the two cannot be compared.
    since = window.start - (metadata.holdout_days.start - metadata.train_days.start)
    identity = spec.source.id_column
    later = predictions[spec.source.events.time_column] >= midnight(metadata.train_days.end)
    if learned := int((~later).sum()):
        log.warning("%d predictions are for events of the days that the version was trained on: left out", learned)
        predictions = predictions[later]
    events = Events(lake, spec, versions[EVENTS]).within(Days(start=since, end=window.end), _columns(spec))
    ids = pd.concat([predictions[identity], events[identity]])
    labels = Labels(lake, spec, versions[spec.label_spec.feed]).known_at(as_of, ids)
    rows = labelled(first_made(predictions, [identity]), labels, spec, midnight(as_of))
    if spec.evaluation.exclude_known_entities:
        # As in the dataset step, only positives among `events` make their entity known.
        rows = rows[~known_before(rows, labels, events, spec)]
    return rows


def _columns(spec: ModelSpec) -> list[str]:
    """The id, the time and the entities of events."""
    return list(dict.fromkeys([spec.source.id_column, spec.source.events.time_column, *spec.entity_columns]))
