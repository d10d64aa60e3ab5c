"""Compute the features of logged predictions again, offline and point-in-time, and report the values that differ."""

import json
import logging
from typing import TYPE_CHECKING

import numpy as np

from training import storage
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.ledger import Ledger
from training.contract.base import Days
from training.contract.messages import AuditInputs, AuditResult, FeatureSkew
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.traffic import SHADOW
from training.domain.audit import AUDIT, Audit, Offline, compare, horizons
from training.settings import Settings
from training.workspace import share

if TYPE_CHECKING:
    import pandas as pd

#: Skew in one of a thousand requests shows in so many, and to look them up takes seconds.
MAXIMUM_ROWS = 5_000

log = logging.getLogger("perennial")


def run(inputs: AuditInputs, settings: Settings) -> AuditResult:
    """Audit the predictions of the drift window before `as_of`, a sample of MAXIMUM_ROWS of them.

    Writes `skew.json` and `skew.md` to `<work>/<model>/skew/<as_of>/` and the share to the ledger, where a rollout
    whose spec limits the skew looks. Run again, it writes the same in the same place. Raises InputError for a table
    version that does not exist.
    """
    if inputs.as_of is None:
        log.info("No knowledge horizon: there is no data yet")
        return AuditResult(outcome="no predictions", as_of=None)
    spec = load_model_spec(inputs.model, settings.models_dir)
    lake = Lake(settings.lake, spec.name)
    window = Days.ending(inputs.as_of, spec.drift.window_days)
    versions = {**lake.versions(PREDICTIONS, *spec.features.tables), **(inputs.table_versions or {})}
    rows = _predictions(lake, spec, window, versions.get(PREDICTIONS))
    if rows is None:
        log.info("Nothing was predicted for %s in %s", window, lake.uri(PREDICTIONS))
        return AuditResult(outcome="no predictions", as_of=inputs.as_of, window=window, table_versions=versions)
    found = _audit(rows, versions, spec, settings)
    body = Audit(
        as_of=inputs.as_of,
        rows=len(rows),
        values=sum(each.values for each in found.values()),
        mismatches=sum(each.mismatches for each in found.values()),
        features={name: each.share for name, each in found.items() if each.mismatches},
    )
    result = AuditResult(
        outcome="measured",
        as_of=inputs.as_of,
        window=window,
        rows=len(rows),
        share=body.share,
        features=found,
        table_versions=versions,
    )
    report = _write(result, spec, settings)
    key = f"{inputs.as_of}:{':'.join(f'{table}={version}' for table, version in sorted(versions.items()))}"
    Ledger(settings.ledger).append(AUDIT, spec.name, body.model_dump(mode="json"), key)
    for line in _table(result):
        log.info("%s", line)
    return result.model_copy(update={"report": str(report)})


def _predictions(lake: Lake, spec: ModelSpec, window: Days, version: int | None) -> "pd.DataFrame | None":
    """Answered predictions of the window, sampled, with `features` read and `horizon` of the online store."""
    import pandas as pd
    import pyarrow.dataset as ds

    if version is None:
        return None
    table = lake.scan(PREDICTIONS, version)
    wanted = (ds.field("day") >= window.start) & (ds.field("day") < window.end)
    optional = [name for name in ("slot", "feature_timestamp") if name in table.schema.names]
    columns = ["prediction_id", "predicted_at", "features", *spec.request_columns, *optional]
    rows = table.to_table(columns, filter=wanted).to_pandas()
    for name in {"slot", "feature_timestamp"} - set(optional):
        rows[name] = None
    # A shadow's row carries the features of the request that another row has.
    rows = rows[rows["slot"].isna() | (rows["slot"] != SHADOW)].sort_values("prediction_id", ignore_index=True)
    if rows.empty:
        return None
    rows["feature_timestamp"] = pd.to_datetime(rows["feature_timestamp"], utc=True)
    if rows["feature_timestamp"].isna().all():
        log.warning("The log has no feature timestamps: what an online store that was behind gave counts as skew")
    rows["horizon"] = horizons(rows["predicted_at"], rows["feature_timestamp"])
    # The lake keeps no order, and the sample must not depend on one.
    if len(rows) > MAXIMUM_ROWS:
        rows = rows.sample(MAXIMUM_ROWS, random_state=spec.training.seed).sort_index()
    return rows.reset_index(drop=True)


def _audit(
    rows: "pd.DataFrame", versions: dict[str, int], spec: ModelSpec, settings: Settings
) -> dict[str, FeatureSkew]:
    import pandas as pd

    from training.adapters.features import Features

    features = Features(settings, spec)
    served = [json.loads(text) for text in rows["features"]]
    names = [name for name in features.names() if any(name in each for each in served)]
    logged = np.array([[each.get(name, np.nan) for name in names] for each in served], np.float64)
    events = rows[list(spec.request_columns)]
    times = pd.DatetimeIndex(rows[spec.feeds["events"].time_column]).tz_convert("UTC")
    tables = {table: versions[table] for table in spec.features.tables if table in versions}

    horizon = pd.DatetimeIndex(rows["horizon"].fillna(pd.Series(times, index=rows.index)))
    strangers = events.assign(**{entity: _nobody(spec, entity) for entity in set(spec.features.tables.values())})
    # One join for the three: as of the request, as of what was online then, and for an entity that nobody knows.
    asked = pd.concat([events, events, strangers], ignore_index=True)
    at = times.append([horizon.where(horizon < times, times), times])
    now, behind, unknown = np.split(features.historical(asked, tables, at)[names].to_numpy(np.float64), 3)
    everyone, known, defaulted = (
        np.ones(len(rows), bool),
        rows["horizon"].notna().to_numpy(),
        rows["feature_timestamp"].isna().to_numpy(),
    )
    ids = rows["prediction_id"].tolist()
    by = (Offline(now, everyone), Offline(behind, known), Offline(unknown, defaulted))
    return compare(names, ids, logged, *by)


def _nobody(spec: ModelSpec, entity: str) -> int | str:
    """A key that no feature table has."""
    return "\0" if spec.request_columns[entity].type == "string" else np.iinfo(np.int64).min + 1


def _write(result: AuditResult, spec: ModelSpec, settings: Settings) -> str:
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
        shown = ", ".join(f"{x.id}: {x.logged:g} → {x.offline:g}" for x in each.examples)
        counts = f"{each.mismatches} | {each.share:.2%} | {each.largest:g} | {each.behind} | {each.defaulted}"
        lines.append(f"| {name} | {counts} | {shown} |")
    return lines
