"""Compute the features of logged predictions again, offline and point-in-time, and report the values that differ."""

import logging
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from training import storage
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.ledger import Ledger
from training.adapters.logged_predictions import Predictions
from training.adapters.registry import Registry
from training.contract.base import Days
from training.contract.feature_definitions import FeatureColumn
from training.contract.messages import AuditInputs, AuditResult, FeatureSkew, Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.audit import AUDIT, Audit, Offline, compare, horizons
from training.domain.encoding import encoded
from training.domain.frames import FEATURE_TIMESTAMP, LOGGED_FEATURES, PREDICTED_AT, PREDICTION_ID, VERSION
from training.engine import engine_of
from training.settings import StateSettings
from training.snapshots import snapshot_of
from training.workspace import served_artifact, share

if TYPE_CHECKING:
    import pandas as pd

#: Skew in one of a thousand requests shows in so many, and to look them up takes seconds.
MAXIMUM_ROWS = 5_000
#: When the online store was last filled before a request, as far as the log can tell.
HORIZON = "_horizon"

log = logging.getLogger("perennial")


def run(inputs: AuditInputs, settings: StateSettings) -> AuditResult:
    """Audit the predictions of the drift window before the snapshot's horizon, a sample of MAXIMUM_ROWS of them.

    Writes `skew.json` and `skew.md` to `<work>/<model>/skew/<as_of>/` and the share to the ledger, where a rollout
    whose spec limits the skew reads it. Run again, it writes the same in the same place. Raises InputError for a table
    version that does not exist.
    """
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    snapshot = snapshot_of(inputs, spec, settings, champion=False)
    if snapshot.as_of is None:
        log.info("No knowledge horizon: there is no data yet")
        return AuditResult(outcome="no predictions", snapshot=snapshot)
    lake = Lake(settings.lake, spec.source.name, spec.name)
    window = Days.ending(snapshot.as_of, spec.monitoring.window_days)
    rows = _predictions(lake, spec, window, snapshot.table_versions.get(PREDICTIONS), settings)
    if rows.empty:
        log.info("Nothing was predicted for %s in %s", window, lake.uri(PREDICTIONS))
        return AuditResult(outcome="no predictions", window=window, snapshot=snapshot)
    found, not_defined = _audit(rows, snapshot.table_versions, spec, settings)
    body = Audit(
        as_of=snapshot.as_of,
        rows=len(rows),
        values=sum(each.values for each in found.values()),
        mismatches=sum(each.mismatches for each in found.values()),
        features={name: each.share for name, each in found.items() if each.mismatches},
    )
    result = AuditResult(
        outcome="measured",
        window=window,
        rows=len(rows),
        share=body.share,
        features=found,
        not_defined=not_defined,
        snapshot=snapshot,
    )
    report = _write(result, spec, settings)
    Ledger(settings.ledger).append(AUDIT, spec.name, body.model_dump(mode="json"), _key(snapshot, lake, spec))
    for line in _table(result):
        log.info("%s", line)
    return result.model_copy(update={"report": str(report)})


def _key(snapshot: Snapshot, lake: Lake, spec: ModelSpec) -> str:
    """The same for audits that read the same: the ledger keeps one entry. A table created again is another table."""
    versions = snapshot.table_versions
    read = [table for table in sorted({PREDICTIONS, *spec.source.entities}) if table in versions]
    tables = lake.identities(read)
    return ":".join([str(snapshot.as_of), *(f"{table}={versions[table]}@{tables[table]}" for table in read)])


def _predictions(
    lake: Lake, spec: ModelSpec, window: Days, version: int | None, settings: StateSettings
) -> "pd.DataFrame":
    """Answered predictions of the window, sampled, with HORIZON: when the online store was last filled before each."""
    predictions, engine, seed = Predictions(lake, spec, version), engine_of(settings), spec.training.seed
    rows = predictions.sampled(window, spec.request_columns, MAXIMUM_ROWS, seed, engine, features=True)
    first = predictions.first_uses(window, engine)
    if first.empty and not rows.empty:
        log.warning("The log has no feature timestamps: old rows of the online store count as skew")
    rows[HORIZON] = horizons(rows[PREDICTED_AT], first[PREDICTED_AT], first[FEATURE_TIMESTAMP])
    return rows


def _audit(
    rows: "pd.DataFrame", versions: dict[str, int], spec: ModelSpec, settings: StateSettings
) -> tuple[dict[str, FeatureSkew], dict[str, int]]:
    """What was found for each feature; and features that are no longer defined → the number of requests with them."""
    import pandas as pd

    from training.adapters.features import Features

    features = Features(settings, spec)
    served = [dict(each) if each is not None else {} for each in rows[LOGGED_FEATURES]]
    counts = Counter(name for each in served for name in each)
    names = [name for name in features.names() if name in counts]
    not_defined = {name: count for name, count in sorted(counts.items()) if name not in names}
    given = np.array([[name in each for name in names] for each in served], bool).reshape(len(rows), len(names))
    values = [[each.get(name) for name in names] for each in served]
    logged = np.array(values, np.float64).reshape(given.shape)
    events = rows[list(spec.request_columns)]
    times = pd.DatetimeIndex(rows[spec.source.events.time_column]).tz_convert("UTC")
    tables = {table: versions[table] for table in spec.source.entities if table in versions}

    horizon = pd.DatetimeIndex(rows[HORIZON].fillna(pd.Series(times, index=rows.index)))
    strangers = events.assign(**{entity: _nobody(spec, entity) for entity in set(spec.source.entities.values())})
    # One join for the three: as of the request, as of what was online then, and for an entity that nobody knows.
    asked = pd.concat([events, events, strangers], ignore_index=True)
    at = times.append([horizon.where(horizon < times, times), times])
    versions_of = np.tile(rows[VERSION].to_numpy(), 3)
    made = features.historical(asked, tables, at)[names]
    now, behind, unknown = np.split(_as_given(made, versions_of, features.texts, spec, settings), 3)
    everyone, known, defaulted = (
        np.ones(len(rows), bool),
        rows[HORIZON].notna().to_numpy(),
        rows[FEATURE_TIMESTAMP].isna().to_numpy(),
    )
    ids = rows[PREDICTION_ID].tolist()
    by = (Offline(now, everyone), Offline(behind, known), Offline(unknown, defaulted))
    return compare(names, ids, logged, given, *by), not_defined


def _as_given(
    made: "pd.DataFrame", versions: np.ndarray, texts: set[str], spec: ModelSpec, settings: StateSettings
) -> np.ndarray:
    """The features `made` [n] as the version of each row got them, float64 [n, d]: texts as that version's codes."""
    values = made.assign(**{name: made[name].astype("float32") for name in made if name not in texts})
    found = np.empty(made.shape)
    for version in np.unique(versions) if texts & set(made) else [None]:
        categories = {} if version is None else _categories(int(version), spec, settings)
        columns = [
            FeatureColumn(name=name, categories=categories.get(name, ()) if name in texts else None) for name in made
        ]
        those = np.ones(len(made), bool) if version is None else versions == version
        found[those] = encoded({name: values[name].to_numpy()[those] for name in made}, columns)
    return found


def _categories(version: int, spec: ModelSpec, settings: StateSettings) -> dict[str, tuple[str, ...]]:
    """Feature that is a text → the categories of this model version."""
    from training.adapters.onnx_model import OnnxModel

    registered = Registry(settings.tracking_uri).get(spec.name, version)
    folder = served_artifact(settings, registered)
    definitions = OnnxModel.load(folder, maximum_mib=settings.artifact_maximum_mib).metadata.features
    return definitions.categories if definitions else {}


def _nobody(spec: ModelSpec, entity: str) -> int | str:
    """A key that no feature table has."""
    column = spec.request_columns[entity]
    return "\0" if column.kind == "string" else column.parsed.range[0]


def _write(result: AuditResult, spec: ModelSpec, settings: StateSettings) -> str:
    """The URI of the page."""
    folder = settings.scratch / spec.name / "skew" / str(result.as_of)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "skew.json").write_text(result.model_dump_json(indent=2))
    (folder / "skew.md").write_text("\n".join([f"# Skew of {spec.name}, {result.window}", "", *_table(result), ""]))
    return storage.join(share(settings, folder), "skew.md")


def _table(result: AuditResult) -> list[str]:
    head = f"{result.rows} requests, {result.share:.3%} of their values are not explained by the features' history."
    lines = [head, "", "| feature | not explained | share | largest | store behind | defaulted | logged → offline |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, each in sorted(result.features.items(), key=lambda item: (-item[1].mismatches, item[0])):
        shown = ", ".join(f"{x.id}: {_shown(x.logged)} → {_shown(x.offline)}" for x in each.examples)
        counts = f"{each.mismatches} | {each.share:.2%} | {each.largest:g} | {each.behind} | {each.defaulted}"
        lines.append(f"| {name} | {counts} | {shown} |")
    if result.not_defined:
        gone = ", ".join(f"{name} ({count} requests)" for name, count in result.not_defined.items())
        lines += ["", f"Logged and not defined any more, so not compared: {gone}."]
    return lines


def _shown(value: float | None) -> str:
    return "not a number" if value is None else f"{value:g}"
