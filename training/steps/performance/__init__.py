"""Measure the champion's predictions against the labels that have come in since."""

import logging
from datetime import date, timedelta
from typing import TYPE_CHECKING

from training.adapters.lake import PREDICTIONS, Lake
from training.contract.artifact import METADATA_FILE, ArtifactMetadata
from training.contract.base import Days
from training.contract.errors import DataContractError
from training.contract.messages import Degradation, Metrics, PerformanceInputs, PerformanceResult, Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.names import shown
from training.domain.change import change_day, daily_losses
from training.domain.frames import LABEL, LOGGED_OUTPUTS, are_finite
from training.domain.looks import look_number
from training.domain.metrics import standard_error
from training.domain.performance import Measured, degradation, matured_window
from training.settings import StateSettings
from training.snapshots import snapshot_of
from training.steps.performance.answers import Answers
from training.steps.performance.beside import measured_beside
from training.workspace import served_artifact

if TYPE_CHECKING:
    import pandas as pd

    from training.domain.task_kind import Scored

log = logging.getLogger("perennial")

#: Windows back from the one that has degraded, in which its change is looked for.
LOOK_BACK = 4


def run(inputs: PerformanceInputs, settings: StateSettings) -> PerformanceResult:
    """Join the champion's logged predictions with the labels known at the snapshot's horizon, for the days whose labels
    have all been reported by then.

    They are measured like the holdout, so that the two can be compared: entities already known as positive are left out
    where the spec says so. Predictions that are not finite numbers are left out and counted. The metrics are logged to
    the champion's run as of the horizon; a second run adds nothing twice. The performance on the newest days, whose
    labels have not come, is estimated (domain/estimated_performance.py), where the champion's run holds its holdout's
    rows. They also show where performance that has degraded fell (domain/diagnosis.py). Raises InputError for an
    unknown version of the model or of a table, TransientError when MLflow does not answer.
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
    found = _measured(snapshot, snapshot.as_of, snapshot.champion_version, window, spec, settings)
    return found.model_copy(update={"window": window, "snapshot": snapshot})


def _measured(
    snapshot: Snapshot, as_of: date, champion_version: int, window: Days, spec: ModelSpec, settings: StateSettings
) -> PerformanceResult:
    from training.adapters.registry import Registry

    lake, versions = Lake(settings.lake, spec.source.name, spec.name), snapshot.table_versions
    if not {PREDICTIONS, *spec.feed_names} <= versions.keys():
        log.info("There are no predictions or no labels in %s", lake.uri(""))
        return PerformanceResult(outcome="no predictions")
    champion = Registry(settings.tracking_uri).get(spec.name, champion_version)
    metadata = ArtifactMetadata.model_validate_json((served_artifact(settings, champion) / METADATA_FILE).read_bytes())
    try:
        metadata.check_kind(spec.task.kind)
    except DataContractError as error:
        log.warning("Version %d cannot be measured: %s", champion_version, error.message)
        return PerformanceResult(outcome="too few labels", lacks=error.message, reference=metadata.holdout_metrics)
    return measured(Answers(champion, metadata, lake, versions, as_of, spec), window, settings)


def measured(answers: Answers, window: Days, settings: StateSettings) -> PerformanceResult:
    """What the labels of `window`, which have all been reported, say of the answers, and the estimate for the newest
    ones."""
    from training.steps.performance.estimates import estimated

    result = _of_matured(answers, window, settings)
    return result.model_copy(update={"estimated": estimated(answers, window, settings)})


def _of_matured(answers: Answers, window: Days, settings: StateSettings) -> PerformanceResult:
    """What the labels of `window`, which have all been reported, say of the answers."""
    from training.adapters.registry.watch import record
    from training.steps.performance.diagnosis import diagnosis

    spec, metadata, task, champion = answers.spec, answers.metadata, answers.task, answers.champion
    predictions, reference = answers.logged(window), metadata.holdout_metrics
    if predictions.empty:
        log.info("Version %d made no prediction for %s in %s", champion.version, window, answers.lake.uri(PREDICTIONS))
        return PerformanceResult(outcome="no predictions")
    rows = answers.counted(predictions, window)
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
    scored = answers.scored(rows)
    current: Metrics = scored.measure()
    for name, value in current.items():
        log.info("  %-22s %.4f, on the holdout %.4f", name, value, reference.get(name, float("nan")))
    _log_shares(counts, metadata.holdout_counts)
    numbers = {f"live/{name}": value for name, value in current.items()}
    numbers |= {f"live/share/{name}": count / len(rows) for name, count in counts.items()}
    record(settings.tracking_uri, champion, numbers, answers.as_of)
    test = _tested(scored, answers, rows, current, window)
    degraded = bool(test and test.degraded)
    where = diagnosis(answers, window, settings) if degraded else None
    change = _changed(answers, window) if degraded else None
    found = {"current": current, "test": test, "degraded": degraded, "diagnosis": where, "change": change}
    return result.model_copy(update=found)


def _changed(answers: Answers, window: Days) -> date | None:
    """The day since which the champion has been losing more than on its holdout, in the last LOOK_BACK windows."""
    metadata = answers.metadata
    start = max(metadata.holdout_days.end, window.end - LOOK_BACK * timedelta(days=len(window)))
    if start >= window.end:  # It was trained after the window, and has scored it in batch.
        return None
    span = Days(start=start, end=window.end)
    rows = answers.counted(answers.logged(span), span)
    rows = rows[are_finite(rows[LOGGED_OUTPUTS])]
    days = rows[answers.spec.source.events.time_column].dt.tz_localize(None).to_numpy()
    losses = answers.scored(rows).losses
    found = None if losses is None else change_day(metadata.holdout_losses, daily_losses(days, losses))
    log.info("First day with higher losses than on the holdout: %s", found or "not found")
    return found


def _log_shares(counts: dict[str, int], before: dict[str, int]) -> None:
    """How common each class is. A change of that is not a change of the model's quality, though metrics may follow
    it."""
    for name, count in counts.items():
        was = f", on the holdout {before.get(name, 0) / sum(before.values()):.2%}" if before else ""
        log.info("  share of %-13s %.2f%%%s", shown(name), 100 * count / sum(counts.values()), was)


def _tested(
    scored: "Scored", answers: Answers, rows: "pd.DataFrame", current: Metrics, window: Days
) -> Degradation | None:
    """The test of the primary metric; None when it is not known of both, or chance cannot be estimated."""
    spec, metadata, task = answers.spec, answers.metadata, answers.task
    primary, drawn = spec.evaluation.primary, answers.clusterings(rows)
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
    beside = measured_beside(answers, window)
    test = degradation(now, before, primary, task.rules[primary], look, spec.monitoring, beside)
    log.info("%s: %s", "DEGRADED" if test and test.degraded else "Not degraded", test)
    return test
