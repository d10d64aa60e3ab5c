"""Compute the feature rows of the affected days. DuckDB over pinned versions; Feast is not needed here."""

import logging
from datetime import timedelta

import pyarrow.compute as pc
import pyarrow.dataset as ds

from training.adapters.feature_query import FeatureQueries
from training.adapters.lake import EVENTS, LABELS, Lake
from training.contract.base import Days, TableVersions, midnight
from training.contract.errors import InputError
from training.contract.messages import FeaturesInputs, FeaturesResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain import sources
from training.domain.conform import feed_schema
from training.settings import Settings

log = logging.getLogger("perennial")


def run(inputs: FeaturesInputs, settings: Settings) -> FeaturesResult:
    """Replace the feature rows of `inputs.days`, table by table, each in one commit.

    Days after the midnight that follows the newest event are left out: they have not happened yet. When a later run
    has written feature rows meanwhile, the versions that it read are read here too: an old run that is run again never
    undoes what a late partition changed.
    Raises InputError when a version is missing, TransientError when another writer commits to the same days.
    """
    spec = load_model_spec(inputs.model, settings.models_dir)
    lake = Lake(settings.lake, spec.name)
    versions = dict(inputs.table_versions)
    if inputs.days is not None and EVENTS not in versions:
        raise InputError("table_versions names no version of `events`", hint="Pass the versions that ingest returned.")
    versions = _not_older(lake, spec, versions)
    relations, days = _read(lake, spec, versions, inputs.days) if inputs.days else ({}, None)
    if days is None:
        log.info("No feature days to compute (asked for %s)", inputs.days)
        return FeaturesResult(rows=dict.fromkeys(spec.features.tables, 0), table_versions=versions)
    queries = FeatureQueries(settings.feature_repo / f"{spec.name}.sql", spec.features.tables)
    rows = {}
    for table in spec.features.tables:
        found = queries.run(table, days, relations)
        where = f"day >= '{days.start}' AND day < '{days.end}'"
        made_of = {sources.APPLICATION: sources.number(versions)}
        versions[table] = lake.replace(table, found, where, ["day"], transactions=made_of)
        rows[table] = found.num_rows
        log.info("Wrote %d rows of %s to %s, version %d", rows[table], days, lake.uri(table), versions[table])
    return FeaturesResult(rows=rows, table_versions=versions)


def _not_older(lake: Lake, spec: ModelSpec, versions: TableVersions) -> TableVersions:
    """`versions`, or those that the newest feature rows were made of when these are newer."""
    if EVENTS not in versions:
        return versions
    applied = max((lake.applied(table, sources.APPLICATION) or 0 for table in spec.features.tables), default=0)
    if applied <= sources.number(versions):
        return versions
    log.info("A later run has read the versions %s: so does this one", sources.versions_of(applied))
    return versions | sources.versions_of(applied)


def _read(
    lake: Lake, spec: ModelSpec, versions: TableVersions, days: Days
) -> tuple[dict[str, ds.Dataset], Days | None]:
    """The events and labels that can matter to `days`, and `days` without those that have not happened yet."""
    time_column, reported = spec.feeds["events"].time_column, spec.feeds["labels"].time_column
    first = midnight(days.start - timedelta(days=spec.features.history_days))
    # The SQL may name a column that the spec has got since, of which no file has landed yet.
    columns = feed_schema(spec.feeds[EVENTS])
    events = lake.scan(EVENTS, versions[EVENTS], columns).filter(ds.field(time_column) >= first)
    newest = pc.max(events.to_table(columns=[time_column])[time_column]).as_py()
    if newest is None or newest.date() + timedelta(days=1) < days.start:
        return {}, None
    days = Days(start=days.start, end=min(days.end, newest.date() + timedelta(days=2)))
    log.info("Reading %s version %d from %s on", lake.uri(EVENTS), versions[EVENTS], first.date())
    events = events.filter(ds.field(time_column) < midnight(days.end))
    labels = _labels(lake, spec, versions)
    labels = labels.filter((ds.field(reported) >= first) & (ds.field(reported) < midnight(days.end)))
    return {"events": events, "labels": labels}, days


def _labels(lake: Lake, spec: ModelSpec, versions: TableVersions) -> ds.Dataset:
    """The labels; an empty table of their schema before the first have come."""
    columns = feed_schema(spec.feeds[LABELS])
    return lake.scan(LABELS, versions[LABELS], columns) if LABELS in versions else ds.dataset(columns.empty_table())
