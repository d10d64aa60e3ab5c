"""Compare the current window's features with the champion's training reference, and its outputs with the holdout's."""

import logging
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from training import storage
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.logged_predictions import Predictions
from training.adapters.registry import ModelVersion, Registry
from training.adapters.tables import Events, covered
from training.contract.base import Days, TableVersions
from training.contract.messages import DriftInputs, DriftResult, Shift, Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.registries import DRIFT_TESTS
from training.domain.comparison import Rows, compared, matched, named_outputs, paired, sample, spread, with_outputs
from training.domain.drift import (
    DISTANCE_SHARE,
    DriftReport,
    current_window,
    has_drifted,
    judged,
    short_of_history,
    tested,
)
from training.domain.embedding_drift import with_domain_scores
from training.domain.encoding import encoded
from training.domain.entity_age import age_name, complete
from training.domain.frames import LOGGED_OUTPUTS, are_finite, logged_outputs
from training.domain.looks import chance_of_error, look_number
from training.domain.performance import first_made
from training.drift_reference import champion_reference
from training.engine import engine_of
from training.entity_ages import entity_ages
from training.settings import StateSettings
from training.snapshots import snapshot_of_run
from training.workspace import served_artifact, share

if TYPE_CHECKING:
    import pandas as pd

    from training.adapters.onnx_model import OnnxModel
    from training.contract.artifact import ArtifactMetadata

log = logging.getLogger("perennial")

#: So many rows of each side are drawn on the page. Of 1M rows of 20 columns it would take two minutes.
PAGE_ROWS = 10_000
#: A year in whole weeks.
YEAR = timedelta(days=364)


def run(inputs: DriftInputs, settings: StateSettings) -> DriftResult:
    """Resolve the snapshot of the monitoring run, and compare. The report goes to
    `<work>/<model>/drift/<as_of>-v<version>/` and is kept with the champion's run.

    Without events or a champion there is nothing to compare, and the outcome says so. A feature of the champion that
    the definitions no longer have is compared as its default, and named; one without a default is left out. A retry
    reads the same snapshot and writes the same report in the same place. Raises InputError when the champion's
    reference is gone from disk and from its run, TransientError when MLflow does not answer.
    """
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    snapshot = snapshot_of_run(inputs.run, spec, settings, inputs.as_of)
    lake, as_of = Lake(settings.lake, spec.source.name, spec.name), snapshot.as_of
    if as_of is None or EVENTS not in snapshot.table_versions:
        log.info("No events in %s: nothing to compare", lake.uri(EVENTS))
        return DriftResult(outcome="no data", snapshot=snapshot)
    if snapshot.champion_version is None:
        log.info("%s has no champion yet: nothing to compare", spec.name)
        return DriftResult(outcome="no champion", snapshot=snapshot)
    window = current_window(as_of, spec.monitoring.window_days)
    rows = _current_events(lake, spec, snapshot.table_versions, window, settings)
    minimum = spec.monitoring.minimum_rows
    if len(rows) < minimum:
        log.warning("%d events are fewer than the %d of monitoring.minimum_rows", len(rows), minimum)
        return DriftResult(outcome="no data", snapshot=snapshot)
    champion = Registry(settings.tracking_uri).get(spec.name, snapshot.champion_version)
    return _compare(rows, champion, snapshot, as_of, spec, settings)


def _current_events(
    lake: Lake, spec: ModelSpec, versions: TableVersions, window: Days, settings: StateSettings
) -> "pd.DataFrame":
    maximum, engine = spec.monitoring.maximum_rows, engine_of(settings)
    rows = Events(lake, spec.source, versions[EVENTS]).sampled(window, maximum, spec.training.seed, engine)
    at_most = f", at most {maximum}" if len(rows) == maximum else ""
    log.info("%d events in %s%s (%s version %d)", len(rows), window, at_most, lake.uri(EVENTS), versions[EVENTS])
    return rows


def _compare(
    rows: "pd.DataFrame",
    champion: ModelVersion,
    snapshot: Snapshot,
    as_of: date,
    spec: ModelSpec,
    settings: StateSettings,
) -> DriftResult:
    from training.adapters.features import Features
    from training.adapters.onnx_model import OnnxModel
    from training.adapters.registry.watch import keep, record

    model = OnnxModel.load(served_artifact(settings, champion), maximum_mib=settings.artifact_maximum_mib)
    made = Features(settings, spec).historical(rows, snapshot.table_versions)
    window = current_window(as_of, spec.monitoring.window_days)
    logged = _logged_outputs(model, champion, snapshot, window, spec, settings)
    found = compare_rows(made, logged, champion, model, window, snapshot.table_versions, spec, settings)
    folder = settings.scratch / spec.name / "drift" / f"{as_of}-v{champion.version}"
    about = {"model": spec.name, "champion": str(champion.version), "window": str(window)}
    about["reference"] = found.described
    about["outputs"] = "computed, as few predictions are logged" if logged is None else "logged"
    report = draw_page(found, folder, about, spec)
    columns = judged({name: each for name, each in report.columns.items() if name not in found.short}, found.shifts)
    drifted, drifted_share = has_drifted(columns, spec.monitoring.maximum_drifted_share)
    log.info("Reference: %s, %d rows, version %d", found.described, len(found.reference.columns), champion.version)
    for name, column in sorted(columns.items(), key=lambda item: item[1].certainty):
        log.info("  %-40s %7.3f %s%s", name, column.score, "DRIFTED: " if column.drifted else "", column.shift or "")
    uri = share(settings, folder)
    log.info("%s: %.0f%% of the features drifted; report in %s", drifted, 100 * drifted_share, uri)
    keep(settings.tracking_uri, champion, folder, f"drift/{as_of}")
    scores = {f"drift/{name}": column.score for name, column in columns.items()}
    record(settings.tracking_uri, champion, scores | {"drift/share": drifted_share}, as_of)
    return DriftResult(
        outcome="measured",
        window=window,
        drifted=drifted,
        drifted_share=drifted_share,
        columns=columns,
        not_defined=found.not_defined,
        short_of_history=found.short,
        report_html=storage.join(uri, report.html.name),
        report_json=storage.join(uri, report.json.name),
        snapshot=snapshot,
    )


def _last_year(
    model: "OnnxModel", window: Days, versions: TableVersions, spec: ModelSpec, settings: StateSettings
) -> Rows | None:
    """The same days of the week a year before, if the spec names that season and the lake has them."""
    from training.adapters.features import Features

    if "year" not in spec.monitoring.seasonality:
        return None
    lake = Lake(settings.lake, spec.source.name, spec.name)
    before = Days(start=window.start - YEAR, end=window.end - YEAR)
    rows = _current_events(lake, spec, versions, before, settings)
    if len(rows) < spec.monitoring.minimum_rows:
        log.warning("Too few events in %s, a year before: compared with the training rows", before)
        return None
    made = Features(settings, spec).historical(rows, versions)
    found = Rows(_features(made, model.metadata, spec)[0], rows[spec.drift_keys])
    return _with_ages(found, rows, before, versions, spec, settings)


def _with_ages(
    found: Rows, events: "pd.DataFrame", days: Days, versions: TableVersions, spec: ModelSpec, settings: StateSettings
) -> Rows:
    """With how long the entities of the same `events`, of `days`, were known: a column that newcomers change."""
    lake = Lake(settings.lake, spec.source.name, spec.name)
    ages = complete(entity_ages(lake, spec, versions[EVENTS], events, days), events)
    return found._replace(columns=found.columns.assign(**{age_name(name): each for name, each in ages.items()}))


class Comparison(NamedTuple):
    """The two sides of a comparison, and what the drift test says of their columns together."""

    reference: Rows
    described: str
    """What the reference is."""
    now: Rows
    outputs: tuple[Rows, Rows]
    """Of the champion, on its holdout and now."""
    shifts: dict[str, Shift]
    not_defined: list[str]
    """Features of the champion that the definitions no longer have: compared as their default."""
    missing: list[str]
    """Those among them that have no default: left out."""
    short: list[str]
    """Features that lack history in the reference: not compared."""


def compare_rows(
    made: "pd.DataFrame",
    logged: Rows | None,
    champion: ModelVersion,
    model: "OnnxModel",
    window: Days,
    versions: TableVersions,
    spec: ModelSpec,
    settings: StateSettings,
) -> Comparison:
    """Test the events of `window`, `made` with their features, against the champion's reference.

    `logged`: what the champion answered to them; None: it is computed.
    """
    metadata = model.metadata
    current, not_defined, missing = _features(made, metadata, spec)
    reference = _last_year(model, window, versions, spec, settings)
    described = f"the training rows of {metadata.train_days}" if reference is None else "a year before"
    reference = reference or champion_reference(champion, metadata, spec, settings)
    now = _with_ages(Rows(current, made[spec.drift_keys]), made, window, versions, spec, settings)
    ages = map(age_name, spec.entity_columns)
    of_one_side = [name for name in ages if name not in reference.columns or name not in now.columns]
    reference, now = reference.without(of_one_side), now.without(of_one_side)
    reference, now = matched(reference, now, spec.source.events.time_column, spec.monitoring.seasonality)
    # The holdout has another season.
    holdout = None if spec.monitoring.seasonality else _holdout_outputs(model)
    outputs = holdout or _computed_outputs(reference, model), logged or _computed_outputs(now, model)
    reference, now = _with_domain_scores(reference.without(missing), now.without(missing), spec)
    short = _short_of_history(metadata, versions[EVENTS], spec, settings)
    shifts = _tested([(reference.without(short), now.without(short)), outputs], window, metadata, spec)
    return Comparison(reference, described, now, outputs, shifts, not_defined, missing, short)


def _with_domain_scores(reference: Rows, now: Rows, spec: ModelSpec) -> tuple[Rows, Rows]:
    """The embeddings as scores. Left out are those that the reference, of an earlier spec, does not have."""
    names = spec.monitoring.embeddings
    if lacking := [name for name in names if name not in reference.columns]:
        log.warning("Not compared, as the champion's reference does not have them: %s", ", ".join(lacking))
    kept = [name for name in names if name not in lacking]
    entity = next(iter(spec.entity_columns), None)
    return with_domain_scores(reference, now.without(lacking), kept, entity, spec.training.seed)


def _tested(
    pairs: "list[tuple[Rows, Rows]]", window: Days, metadata: "ArtifactMetadata", spec: ModelSpec
) -> dict[str, Shift]:
    """The columns of all pairs of reference and current rows, with the drift test of the spec."""
    monitoring, time = spec.monitoring, spec.source.events.time_column
    look = look_number(window, metadata.holdout_days, monitoring.window_days)
    chance = chance_of_error(monitoring.confidence, look, monitoring.window_days)
    sides = [paired(before, now, spec.entity_columns, time) for before, now in pairs]
    # In a year many values come and go.
    new = 1.0 if "year" in monitoring.seasonality else monitoring.minimum_new_share
    return tested(sides, DRIFT_TESTS.find(monitoring.test), monitoring.minimum_shift, chance, new)


def draw_page(found: Comparison, folder: Path, about: dict[str, str], spec: ModelSpec) -> DriftReport:
    """Evidently's page, of a sample: its time grows with the rows."""
    from training.adapters.drift_report import write_drift_report

    if found.not_defined:
        about = about | {"not defined any more": ", ".join(found.not_defined)}
        left_out = f"; left out, as they have no default: {', '.join(found.missing)}" if found.missing else ""
        log.warning("Not defined any more, compared as the default: %s%s", about["not defined any more"], left_out)
    drifted = [f"{name}: {each}" for name, each in found.shifts.items() if each.drifted]
    about = about | {"drifted": "; ".join(drifted) or "no column"}
    drawn = [
        with_outputs(sample(side.columns, PAGE_ROWS, spec.training.seed), of_side.columns)
        for side, of_side in zip((found.reference, found.now), found.outputs, strict=True)
    ]
    share_of_columns = spec.monitoring.maximum_drifted_share or DISTANCE_SHARE
    return write_drift_report(drawn[0], drawn[1], share_of_columns, folder, about)


def _short_of_history(
    metadata: "ArtifactMetadata", version: int, spec: ModelSpec, settings: StateSettings
) -> list[str]:
    lake = Lake(settings.lake, spec.source.name, spec.name)
    days = covered(lake, spec.source, EVENTS, version)
    if days is None or metadata.features is None:
        return []
    found = short_of_history(spec.source, metadata.features, metadata.train_days, days.start)
    short = [name for name in metadata.feature_names if name in found]
    if short:
        log.warning("Not compared, as events before %s are missing in the reference: %s", days.start, ", ".join(short))
    return short


def _features(
    made: "pd.DataFrame", metadata: "ArtifactMetadata", spec: ModelSpec
) -> tuple["pd.DataFrame", list[str], list[str]]:
    """The champion's features, in its order, and the embeddings; the names of those that were not `made`, which have
    their default; and of those among them that have none, and are missing."""
    views = metadata.features.views if metadata.features else ()
    defaults = {column.name: column.default for view in views for column in view.columns}
    optional = {column.name for column in metadata.columns if column.may_be_missing or column.categories is not None}
    not_defined = [name for name in metadata.feature_names if name not in made]
    missing = [name for name in not_defined if name in optional]
    made = made.assign(**{name: None if name in missing else defaults.get(name, 0.0) for name in not_defined})
    return compared(made, metadata.columns, spec.monitoring.embeddings), not_defined, missing


def _holdout_outputs(model: "OnnxModel") -> Rows | None:
    """What the model predicted on its holdout; None where its artifact is from before it held them."""
    import pandas as pd

    kept, rows = model.metadata.holdout_outputs, sum(model.metadata.holdout_counts.values())
    if not kept:
        return None
    # A thousand values represent those of all rows.
    values = {name: pd.Series(each).to_numpy() for name, each in kept.items()}
    return Rows(named_outputs({name: spread(each, max(rows, len(each))) for name, each in values.items()}), None)


def _logged_outputs(
    model: "OnnxModel",
    champion: ModelVersion,
    snapshot: Snapshot,
    window: Days,
    spec: ModelSpec,
    settings: StateSettings,
) -> Rows | None:
    """What the champion answered to events of the window, first; None when fewer than `minimum_rows` are logged."""
    lake = Lake(settings.lake, spec.source.name, spec.name)
    predictions = Predictions(lake, spec, snapshot.table_versions.get(PREDICTIONS))
    identity = spec.source.id_column
    wanted = list(dict.fromkeys([identity, *spec.drift_keys]))
    drawn = predictions.sampled(
        window,
        wanted,
        spec.monitoring.maximum_rows,
        spec.training.seed,
        engine_of(settings),
        champion.version,
        outputs=True,
        digest=champion.digest,
    )
    rows = first_made(drawn, [identity])
    rows = rows[are_finite(rows[LOGGED_OUTPUTS])]
    if len(rows) < spec.monitoring.minimum_rows:
        log.info("%d predictions of version %d are logged: its outputs are computed", len(rows), champion.version)
        return None
    found = logged_outputs(rows[LOGGED_OUTPUTS], model.task.output_names)
    return Rows(named_outputs(model.task.monitored(model.task.scores(found))), rows[spec.drift_keys])


def _computed_outputs(rows: Rows, model: "OnnxModel") -> Rows:
    columns = model.metadata.columns
    values = encoded({column.name: rows.columns[column.name].to_numpy() for column in columns}, columns)
    return Rows(named_outputs(model.task.monitored(model.score(values))), rows.keys)
