"""Measure the champion's predictions against the labels that have come in since."""

import logging
from datetime import date
from typing import TYPE_CHECKING

from training.adapters.lake import EVENTS, LABELS, PREDICTIONS, Lake
from training.adapters.tables import Events, Labels, Predictions
from training.contract.artifact import METADATA_FILE, ArtifactMetadata
from training.contract.base import Days, midnight
from training.contract.messages import Metrics, PerformanceInputs, PerformanceResult, Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.frames import LABEL, PROBABILITY
from training.domain.performance import first_made, has_degraded, matured_window
from training.settings import StateSettings
from training.snapshots import snapshot_of
from training.workspace import served_artifact

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("perennial")


def run(inputs: PerformanceInputs, settings: StateSettings) -> PerformanceResult:
    """Join the champion's logged predictions with the labels known at the snapshot's horizon, for the days whose labels
    have all been reported by then.

    They are measured like the holdout, so that the two can be compared: entities already known as positive are left out
    where the spec says so. The metrics are logged to the champion's run as of the horizon; run again, nothing doubles.
    Raises InputError for an unknown version of the model or of a table, TransientError when MLflow does not answer.
    """
    spec = load_model_spec(inputs.model, settings.models_dir)
    snapshot = snapshot_of(inputs, spec, settings)
    if snapshot.champion_version is None:
        log.info("No champion: nothing to measure")
        return PerformanceResult(outcome="no champion", snapshot=snapshot)
    if snapshot.as_of is None:
        log.info("No knowledge horizon: there is no data yet")
        return PerformanceResult(outcome="no predictions", snapshot=snapshot)
    lake, versions = Lake(settings.lake, spec.name), snapshot.table_versions
    window = matured_window(snapshot.as_of, spec.drift.window_days, spec.label.delay_days)
    columns = [spec.label.id_column, spec.feeds[EVENTS].time_column, spec.evaluation.entity]
    logged = Predictions(lake, spec, versions.get(PREDICTIONS))
    predictions = logged.answered(window, columns, snapshot.champion_version)
    if predictions.empty or not {LABELS, EVENTS} <= versions.keys():
        log.info("Version %d made no prediction for %s in %s", snapshot.champion_version, window, lake.uri(PREDICTIONS))
        return PerformanceResult(outcome="no predictions", window=window, snapshot=snapshot)
    return _measure(predictions, snapshot, snapshot.as_of, snapshot.champion_version, window, spec, settings)


def _measure(
    predictions: "pd.DataFrame",
    snapshot: Snapshot,
    as_of: date,
    champion_version: int,
    window: Days,
    spec: ModelSpec,
    settings: StateSettings,
) -> PerformanceResult:
    import pandas as pd

    from training.adapters.registry import Registry
    from training.adapters.registry.watch import record
    from training.domain.labels import known_before, labelled
    from training.domain.metrics import measure

    lake, versions = Lake(settings.lake, spec.name), snapshot.table_versions
    champion = Registry(settings.tracking_uri).get(spec.name, champion_version)
    artifact = served_artifact(settings, champion) / METADATA_FILE
    metadata = ArtifactMetadata.model_validate_json(artifact.read_bytes())
    time = spec.feeds[EVENTS].time_column
    # Positives make their entity known for as long back as in the holdout: longer, and the two cannot be compared.
    since = window.start - (metadata.holdout_days.start - metadata.train_days.start)
    identity, columns = spec.label.id_column, [spec.label.id_column, spec.evaluation.entity, time]
    events = Events(lake, spec, versions[EVENTS]).within(Days(start=since, end=window.end), columns)
    ids = pd.concat([predictions[identity], events[identity]])
    labels = Labels(lake, spec, versions[LABELS]).known_at(as_of, ids)
    rows = labelled(first_made(predictions, [identity]), labels, spec, midnight(as_of))
    if spec.evaluation.exclude_known_entities:
        # As in the dataset step, only positives among `events` make their entity known.
        rows = rows[~known_before(rows, labels, events, spec)]
    positives = int(rows[LABEL].sum())
    log.info("%d predictions, %d with a label, %d positive, in %s", len(predictions), len(rows), positives, window)
    reference = metadata.holdout_metrics
    counted = PerformanceResult(
        outcome="too few labels",
        window=window,
        rows=len(rows),
        positives=positives,
        reference=reference,
        snapshot=snapshot,
    )
    if positives < spec.drift.minimum_positives or positives == len(rows):
        log.info("Too few: the spec asks for %d positive labels, and some negative", spec.drift.minimum_positives)
        return counted
    days = rows[time].dt.floor("D")
    scores, entities = rows[PROBABILITY].to_numpy(), rows[spec.evaluation.entity]
    current: Metrics = measure(rows[LABEL], scores, entities, days, spec.evaluation.k)
    degraded = has_degraded(current, reference, spec.evaluation.primary, spec.drift.maximum_performance_drop)
    for name, value in current.items():
        log.info("  %-22s %.4f, on the holdout %.4f", name, value, reference.get(name, float("nan")))
    record(settings.tracking_uri, champion, {f"live/{name}": value for name, value in current.items()}, as_of)
    return counted.model_copy(update={"outcome": "measured", "current": current, "degraded": degraded})
