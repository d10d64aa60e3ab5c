"""Compare the current window's features with the champion's training reference, and its outputs with the holdout's."""

import logging
from datetime import date
from typing import TYPE_CHECKING

from training import storage
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.registry import REFERENCE, ModelVersion, Registry
from training.adapters.tables import Events, Predictions
from training.contract.base import Days, TableVersions
from training.contract.errors import InputError
from training.contract.messages import DatasetInputs, DriftInputs, DriftResult, Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.drift import compared, current_window, has_drifted, sample, with_outputs
from training.domain.encoding import encoded
from training.domain.frames import LOGGED_OUTPUTS, PREDICTION_ID, are_finite, logged_outputs
from training.domain.identity import dataset_id
from training.domain.performance import first_made
from training.settings import StateSettings
from training.snapshots import snapshot_of_run
from training.workspace import served_artifact, share

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from training.adapters.onnx_model import OnnxModel
    from training.contract.artifact import ArtifactMetadata

log = logging.getLogger("perennial")


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
    rows = _current_events(lake, spec, snapshot.table_versions, window)
    minimum = spec.monitoring.minimum_rows
    if len(rows) < minimum:
        log.warning("%d events are fewer than the %d of monitoring.minimum_rows", len(rows), minimum)
        return DriftResult(outcome="no data", snapshot=snapshot)
    champion = Registry(settings.tracking_uri).get(spec.name, snapshot.champion_version)
    return _compare(rows, champion, snapshot, as_of, spec, settings)


def _current_events(lake: Lake, spec: ModelSpec, versions: TableVersions, window: Days) -> "pd.DataFrame":
    rows = Events(lake, spec, versions[EVENTS]).within(window)
    log.info("%d events in %s (%s version %d)", len(rows), window, lake.uri(EVENTS), versions[EVENTS])
    # The lake keeps no order, and the sample must not depend on one.
    rows = rows.sort_values(spec.source.id_column, ignore_index=True)
    return sample(rows, spec.monitoring.maximum_rows, spec.training.seed)


def _compare(
    rows: "pd.DataFrame",
    champion: ModelVersion,
    snapshot: Snapshot,
    as_of: date,
    spec: ModelSpec,
    settings: StateSettings,
) -> DriftResult:
    from training.adapters.drift_report import write_drift_report
    from training.adapters.features import Features
    from training.adapters.onnx_model import OnnxModel
    from training.adapters.registry.watch import keep, record

    model = OnnxModel.load(served_artifact(settings, champion), maximum_mib=settings.artifact_maximum_mib)
    made = Features(settings, spec).historical(rows, snapshot.table_versions)
    current, not_defined, missing = _features(made, model.metadata)
    window = current_window(as_of, spec.monitoring.window_days)
    folder = settings.scratch / spec.name / "drift" / f"{as_of}-v{champion.version}"
    about = {"model": spec.name, "champion": str(champion.version), "window": str(window)}
    if not_defined:
        about["not defined any more"] = ", ".join(not_defined)
        left_out = f"; left out, as they have no default: {', '.join(missing)}" if missing else ""
        log.warning("Not defined any more, compared as the default: %s%s", about["not defined any more"], left_out)
    reference = _reference(champion, model, spec, settings)
    outputs = _logged_outputs(model, champion, snapshot, window, spec, settings)
    about["outputs"] = "logged" if outputs else "computed, as few predictions are logged"
    report = write_drift_report(
        with_outputs(reference.drop(columns=missing), _holdout_outputs(model) or _outputs(reference, model)),
        with_outputs(current.drop(columns=missing), outputs or _outputs(current, model)),
        spec.monitoring.maximum_drifted_share,
        folder,
        about,
        spec.monitoring.test,
    )
    drifted, drifted_share = has_drifted(report.columns, spec.monitoring.maximum_drifted_share)
    log.info("Reference: the training rows of %s, version %d", model.metadata.train_days, champion.version)
    for name, column in sorted(report.columns.items(), key=lambda item: -item[1].score):
        log.info("  %-40s %7.3f %s", name, column.score, "drifted" if column.drifted else "")
    uri = share(settings, folder)
    log.info("%s: %.0f%% of the features drifted; report in %s", drifted, 100 * drifted_share, uri)
    keep(settings.tracking_uri, champion, folder, f"drift/{as_of}")
    scores = {f"drift/{name}": column.score for name, column in report.columns.items()}
    record(settings.tracking_uri, champion, scores | {"drift/share": drifted_share}, as_of)
    return DriftResult(
        outcome="measured",
        window=window,
        drifted=drifted,
        drifted_share=drifted_share,
        columns=report.columns,
        not_defined=not_defined,
        report_html=storage.join(uri, report.html.name),
        report_json=storage.join(uri, report.json.name),
        snapshot=snapshot,
    )


def _features(made: "pd.DataFrame", metadata: "ArtifactMetadata") -> tuple["pd.DataFrame", list[str], list[str]]:
    """The champion's features, in its order; the names of those that were not `made`, which have their default; and of
    those among them that have none, and are missing."""
    views = metadata.features.views if metadata.features else ()
    defaults = {column.name: column.default for view in views for column in view.columns}
    optional = {column.name for column in metadata.columns if column.may_be_missing or column.categories is not None}
    not_defined = [name for name in metadata.feature_names if name not in made]
    missing = [name for name in not_defined if name in optional]
    made = made.assign(**{name: None if name in missing else defaults.get(name, 0.0) for name in not_defined})
    return compared(made, metadata.columns), not_defined, missing


def _reference(champion: ModelVersion, model: "OnnxModel", spec: ModelSpec, settings: StateSettings) -> "pd.DataFrame":
    """A sample of the features that the champion was trained on, from its dataset or, when that is gone, its run."""
    import pandas as pd

    from training.adapters import datasets

    metadata, work = model.metadata, settings.scratch / spec.name
    path = work / "datasets" / metadata.dataset_id / datasets.REFERENCE
    if not path.is_file():
        # Not beside the dataset's files: a folder with some of them is no dataset.
        path = work / "references" / metadata.dataset_id / datasets.REFERENCE
    kept = f"{REFERENCE}/{datasets.REFERENCE}"
    if not path.is_file() and not Registry(settings.tracking_uri).download_file(champion.run_id, kept, path):
        problem = f"The champion's reference, of dataset {metadata.dataset_id}, is neither in {work} nor in its run as"
        raise InputError(f"{problem} {kept}", hint=_how_to_restore(metadata, spec, settings))
    log.info("Reference read from %s", path)
    kept_rows = compared(pd.read_parquet(path), metadata.columns)
    return sample(kept_rows, spec.monitoring.maximum_rows, spec.training.seed)


def _how_to_restore(metadata: "ArtifactMetadata", spec: ModelSpec, settings: StateSettings) -> str:
    """What to do about a missing reference. The dataset step can make it again while its dataset has the same id."""
    from training.adapters.features import definitions_digest

    definitions, days = definitions_digest(settings.feature_repo, spec.source), len(metadata.train_days)
    versions = metadata.table_versions
    tables = Lake(settings.lake, spec.source.name, spec.name).identities(versions)
    now = dataset_id(spec, metadata.as_of, versions, tables, days, spec.training.seed, definitions)
    if now != metadata.dataset_id:
        changed = "The parts of the model spec or the feature definitions that decide the dataset have changed since"
        return f"{changed}: train a new champion (run {spec.name}_train with Force)."
    snapshot = Snapshot(as_of=metadata.as_of, table_versions=metadata.table_versions)
    inputs = DatasetInputs(model=spec.name, snapshot=snapshot, window_days=days)
    return f"Make it again with `make step STEP=dataset INPUTS='{inputs.model_dump_json(exclude_none=True)}'`."


def _holdout_outputs(model: "OnnxModel") -> "dict[str, np.ndarray]":
    """What the model predicted on its holdout; empty where its artifact is from before it held them."""
    import numpy as np

    return {name: np.array(values) for name, values in model.metadata.holdout_outputs.items()}


def _logged_outputs(
    model: "OnnxModel",
    champion: ModelVersion,
    snapshot: Snapshot,
    window: Days,
    spec: ModelSpec,
    settings: StateSettings,
) -> "dict[str, np.ndarray]":
    """What the champion answered to events of the window, first; empty when fewer than `minimum_rows` are logged."""
    lake = Lake(settings.lake, spec.source.name, spec.name)
    predictions = Predictions(lake, spec, snapshot.table_versions.get(PREDICTIONS))
    identity = spec.source.id_column
    answered = predictions.answered(window, [identity], champion.version, outputs=True, digest=champion.digest)
    rows = first_made(answered, [identity])
    rows = rows[are_finite(rows[LOGGED_OUTPUTS])]
    if len(rows) < spec.monitoring.minimum_rows:
        log.info("%d predictions of version %d are logged: its outputs are computed", len(rows), champion.version)
        return {}
    rows = sample(rows.sort_values(PREDICTION_ID, ignore_index=True), spec.monitoring.maximum_rows, spec.training.seed)
    found = logged_outputs(rows[LOGGED_OUTPUTS], model.task.output_names)
    return model.task.monitored(model.task.scores(found))


def _outputs(features: "pd.DataFrame", model: "OnnxModel") -> "dict[str, np.ndarray]":
    columns = model.metadata.columns
    values = encoded({column.name: features[column.name].to_numpy() for column in columns}, columns)
    return model.task.monitored(model.score(values))
