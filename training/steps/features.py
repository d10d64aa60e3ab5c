"""Compute the feature rows of the affected days. CT_ENGINE over pinned versions of the feeds.

A feature table carries the number of the definition that it was made by. When the definition has changed, all its days
are computed again and replace the old rows and columns in one commit: a version never mixes two meanings.
"""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from training.adapters.feature_query import FeatureQueries
from training.adapters.lake import EVENTS, Lake
from training.adapters.tables import Events, FeatureDays, feeds_read, reports_relation
from training.contract.base import Days, TableVersions, midnight
from training.contract.errors import InputError
from training.contract.messages import FeaturesInputs, FeaturesResult
from training.contract.source_spec import SourceSpec, load_source_spec
from training.delta_reader import Span
from training.domain import feature_inputs
from training.domain.feature_engine import Relation
from training.domain.identity import definition_number
from training.settings import StateSettings

#: When a table is recomputed, so many days are computed at once, or more as long as they have fewer events than this.
#: The days before a chunk are read again with it.
CHUNK_DAYS, CHUNK_EVENTS = 31, 4_000_000

log = logging.getLogger("perennial")


def run(inputs: FeaturesInputs, settings: StateSettings) -> FeaturesResult:
    """Replace the feature rows of `inputs.days`, table by table, each in one commit.

    A table whose definition has changed, or that does not exist yet, is recomputed for all days that the events give
    it, whatever `inputs.days` says. Days after the midnight that follows the newest event have not happened yet: they
    get no rows, and lose those that a corrected partition had given them. When a later run has written feature rows
    meanwhile, the versions that it read are read here too: an old run that is run again never undoes what a late
    partition changed.
    Raises InputError when a version is missing, ConfigError when SQL, feature views and spec do not fit together,
    DataContractError when the SQL yields nulls or numbers that are not finite, TransientError when another writer
    commits to the same days.
    """
    spec = load_source_spec(inputs.source, settings.feature_repo)
    lake = Lake(settings.lake, spec.name)
    versions = dict(inputs.table_versions)
    rows = dict.fromkeys(spec.entities, 0)
    if EVENTS not in versions:
        if inputs.days is not None:
            raise InputError(
                "table_versions names no version of `events`", hint="Pass the versions that ingest returned."
            )
        return FeaturesResult(rows=rows, table_versions=versions)
    versions = _not_older(lake, spec, versions)
    feeds = _Feeds.pinned(lake, spec, versions)
    queries = FeatureQueries.of_source(spec, settings.feature_repo, settings.engine, settings.engine_url)
    written: TableVersions = {}
    for table, columns in _checked_columns(queries, feeds, spec, settings).items():
        definition = _definition(queries, table, columns, feeds)
        made_of = feature_inputs.made_of(versions, spec.feeds) | {feature_inputs.DEFINITION: definition}
        if lake.applied(table, feature_inputs.DEFINITION) != definition:
            if (everything := feeds.all_days(table)) is None:
                continue
            days = everything.days
            _log_change(lake, table, columns, days, [feed for feed in spec.feeds if feed in versions])
            rows[table], written[table] = _recompute(lake, queries, table, columns, everything, feeds, made_of)
        else:
            if inputs.days is None:
                continue
            days, happened = inputs.days, feeds.happened(table, inputs.days)
            if happened is None and not FeatureDays(lake, table, lake.version(table)).within(days):
                continue
            found = _computed(queries, table, happened, feeds) if happened else columns.empty_table()
            where = f"day >= '{days.start}' AND day < '{days.end}'"
            rows[table] = found.num_rows
            written[table] = lake.replace(table, found, where, ["day"], transactions=made_of)
        log.info("Wrote %d rows of %s to %s, version %d", rows[table], days, lake.uri(table), written[table])
    if not written:
        log.info("No feature days to compute (asked for %s)", inputs.days)
    versions = versions | lake.versions(*spec.entities) | written
    return FeaturesResult(rows=rows, table_versions=versions, as_of=_newest_day(lake, spec, versions))


def _newest_day(lake: Lake, spec: SourceSpec, versions: TableVersions) -> date | None:
    days = [lake.largest(table, "day", versions.get(table)) for table in spec.entities]
    return max((day for day in days if day is not None), default=None)


def _not_older(lake: Lake, spec: SourceSpec, versions: TableVersions) -> TableVersions:
    """`versions`, or those that the newest feature rows were made of when these are newer.

    Versions that a feed does not have are those of an earlier table, which was moved away and started over.
    """
    read = [feeds_read(lake, table, spec.feeds) for table in spec.entities]
    later = max(read, key=lambda each: feature_inputs.age(each, spec.feeds), default=versions)
    if feature_inputs.age(later, spec.feeds) <= feature_inputs.age(versions, spec.feeds):
        return versions
    now = lake.versions(*spec.feeds)
    if any(now.get(table, -1) < version for table, version in later.items()):
        return versions
    log.info("A later run has read the versions %s: so does this one", later)
    return versions | later


class _Happened(NamedTuple):
    """Days of feature rows, and the time of the last row that the newest event gives: its next midnight or hour."""

    days: Days
    last: datetime


@dataclass(frozen=True)
class _Feeds:
    """The feeds at their pinned versions."""

    events: Events
    lake: Lake
    spec: SourceSpec
    versions: TableVersions
    #: The ids of the feeds' tables: one that is begun anew has another.
    tables: tuple[str | None, ...]

    @classmethod
    def pinned(cls, lake: Lake, spec: SourceSpec, versions: TableVersions) -> "_Feeds":
        log.info("Reading %s version %d", lake.uri(EVENTS), versions[EVENTS])
        tables = tuple(lake.identity(feed) for feed in spec.feeds if feed in versions)
        return cls(Events(lake, spec, versions[EVENTS]), lake, spec, versions, tables)

    def of(self, days: Days, table: str) -> dict[str, Relation]:
        """Feed → its rows that can matter to the rows of `table` on `days`. SQL by hand may read any feed."""
        declared = self.spec.features.tables[table]
        back, feeds = self.spec.history_days, self.spec.label_feeds
        if declared.is_declared:
            back = self.spec.history_of(table)
            feeds = [] if declared.label is None else [self.spec.label(declared.label).feed]
        since, versions = days.start - timedelta(days=back), self.versions
        events = self.events.relation(Days(start=since, end=days.end))
        reports = {
            feed: reports_relation(self.lake, self.spec, feed, versions.get(feed), events, since, days.end)
            for feed in feeds
            if feed != EVENTS
        }
        return {EVENTS: events, **reports}

    def empty(self, table: str) -> dict[str, pa.Table]:
        """As `of`, without rows."""
        day = Days.ending(date(1970, 1, 2), 1)
        return {feed: relation.schema.empty_table() for feed, relation in self.of(day, table).items()}

    def all_days(self, table: str) -> _Happened | None:
        """From the first row that the first event gives to the last that the newest gives; None without events."""
        if self.span is None:
            return None
        first, last = (self._next_row(table, time) for time in self.span)
        return _Happened(Days(start=first.date(), end=last.date() + timedelta(days=1)), last)

    def happened(self, table: str, days: Days) -> _Happened | None:
        """`days` without those that have not happened yet; None when that is all of them."""
        if self.span is None or (last := self._next_row(table, self.span[1])) < midnight(days.start):
            return None
        return _Happened(Days(start=days.start, end=min(days.end, last.date() + timedelta(days=1))), last)

    def _next_row(self, table: str, time: datetime) -> datetime:
        """The midnight or the hour that follows `time`: the first row of `table` that an event of then can change."""
        if table in self.spec.hourly_tables:
            return time.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return midnight(time.date() + timedelta(days=1))

    @cached_property
    def span(self) -> tuple[datetime, datetime] | None:
        """The times of the first and the newest event."""
        return (
            (min(each.earliest for each in self._spans), max(each.newest for each in self._spans))
            if self._spans
            else None
        )

    @cached_property
    def events_per_day(self) -> float:
        days = (self.span[1] - self.span[0]).days + 1 if self.span else 1
        return sum(each.rows for each in self._spans) / days

    @cached_property
    def _spans(self) -> list[Span]:
        return self.lake.spans(EVENTS, self.spec.events.time_column, self.versions[EVENTS])


def _checked_columns(
    queries: FeatureQueries, feeds: _Feeds, spec: SourceSpec, settings: StateSettings
) -> dict[str, pa.Schema]:
    """Feature table → its columns, as the SQL yields them and the feature views name them."""
    from training.adapters.features.definitions import load_definitions
    from training.adapters.features.view_schemas import check_schema

    definitions = load_definitions(settings.feature_repo, spec)
    queries.may_be_null = definitions.may_be_null
    found = {table: queries.schema(table, feeds.empty(table)) for table in spec.entities}
    for table, columns in found.items():
        check_schema(definitions, settings.feature_repo, spec, table, columns)
    return found


def _definition(queries: FeatureQueries, table: str, columns: pa.Schema, feeds: _Feeds) -> int:
    """The number of what decides the values of `table`: SQL, columns and types, how far back it looks, which feeds."""
    types = [(field.name, str(field.type)) for field in columns]
    labels = feeds.spec.labels.values()
    implied = [
        each
        for label in labels
        if label.unlabelled_after_delay != "missing"
        for each in (label.unlabelled_after_delay, label.delay_days)
    ]
    history_days = feeds.spec.history_of(table)
    return definition_number(queries.tokens(table), types, history_days, feeds.tables, *implied)


def _log_change(lake: Lake, table: str, columns: pa.Schema, days: Days, feeds: list[str]) -> None:
    """Say why `table` is recomputed. `feeds`: those that it is made of now."""
    if lake.version(table) is None:
        log.info("%s does not exist yet: computing all its days, %s", table, days)
        return
    old = {field.name: str(field.type) for field in lake.scan(table).schema}
    new = {field.name: str(field.type) for field in columns}
    changes = [f"{name} added" for name in new if name not in old]
    changes += [f"{name} removed" for name in old if name not in new]
    changes += [f"{name} {old[name]} → {new[name]}" for name in new if name in old and old[name] != new[name]]
    read = feeds_read(lake, table, feeds)
    if not changes and read and (first := [feed for feed in feeds if feed not in read]):
        # As after the first delivery of labels, which changes nothing that somebody wrote.
        log.info("%s is made of %s, too, from now on: computing all its days, %s", table, " and ".join(first), days)
        return
    said = ", ".join(changes) or "the SQL, history_days or a feed begun anew, not the columns"
    log.warning("The definition of %s has changed (%s): recomputing all its days, %s", table, said, days)


def _recompute(
    lake: Lake,
    queries: FeatureQueries,
    table: str,
    columns: pa.Schema,
    happened: _Happened,
    feeds: _Feeds,
    made_of: dict[str, int],
) -> tuple[int, int]:
    """All rows of `table` in one commit, computed chunk by chunk. Returns their number and the version."""
    with tempfile.TemporaryDirectory(prefix="perennial-features-") as folder:
        path, count = Path(folder, f"{table}.arrow"), 0
        with pa.ipc.new_file(path, columns) as writer:
            for chunk in _chunks(happened.days, feeds.events_per_day):
                rows = _computed(queries, table, _Happened(chunk, happened.last), feeds)
                writer.write_table(rows.select(columns.names).cast(columns))
                count += rows.num_rows
        # Read back batch by batch. To Arrow a reader is as good as a table.
        reader = ds.dataset(path, format="ipc").scanner().to_reader()
        return count, lake.overwrite(table, reader, ["day"], transactions=made_of)


def _computed(queries: FeatureQueries, table: str, happened: _Happened, feeds: _Feeds) -> pa.Table:
    rows = queries.run(table, happened.days, feeds.of(happened.days, table))
    if table not in feeds.spec.hourly_tables:
        return rows
    return rows.filter(pc.field("feature_timestamp") <= happened.last)


def _chunks(days: Days, events_per_day: float) -> Iterator[Days]:
    size = min(len(days), max(CHUNK_DAYS, int(CHUNK_EVENTS / max(1.0, events_per_day))))
    start = days.start
    while start < days.end:
        end = min(start + timedelta(days=size), days.end)
        yield Days(start=start, end=end)
        start = end
