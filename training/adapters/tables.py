"""The tables of a source as typed readers, each pinned to a version; logged_predictions.py has that of a model.

These two alone decide which rows count. Frames have the columns of the spec under their own names; integers with nulls
among them are Int64. Ours begin with an underscore, as no column of a spec does.
"""

import functools
import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc
import pyarrow.dataset as ds

from training.adapters.lake import EVENTS, Lake
from training.contract.base import Days, TableVersions, midnight
from training.contract.feeds import PARTITION
from training.contract.model_spec import ModelSpec
from training.contract.source_spec import LabelColumn, SourceSpec
from training.domain.arrow_types import as_exact_pandas, feed_schema
from training.domain.coverage import covered_days
from training.domain.feature_engine import FeatureEngine, LakeRows, MadeRows
from training.domain.feature_inputs import feed_application
from training.domain.label_reports_sql import reports_sql
from training.domain.samples import sample_sql
from training.domain.sql_names import quoted

if TYPE_CHECKING:
    import pandas as pd

#: Events that are looked at together.
_BATCH_ROWS = 100_000


def covered(lake: Lake, source: SourceSpec, feed: str, version: int | None) -> Days | None:
    """The days from the feed's first row to its newest at `version`, from file statistics.

    None without rows; so is `version` None, of a feed that has no table yet.
    """
    spans = [] if version is None else lake.spans(feed, source.feeds[feed].time_column, version)
    return covered_days((span.earliest, span.newest) for span in spans)


@dataclass(frozen=True)
class Events:
    """Raises InputError when the version does not exist; so do all readers here."""

    lake: Lake
    source: SourceSpec
    version: int

    @property
    def _time(self) -> str:
        return self.source.events.time_column

    def _scan(self) -> ds.FileSystemDataset:
        # A column that the spec has got since is null until events have landed with it.
        return self.lake.scan(EVENTS, self.version, feed_schema(self.source.events))

    def within(self, days: Days, columns: Collection[str] | None = None) -> "pd.DataFrame":
        """The events of `days`, with these `columns` (None: all of the spec), in no order."""
        wanted = list(columns or self.source.request_columns)
        rows = self._scan().to_table(list(dict.fromkeys(wanted)), filter=_within(self._time, days))
        found: pd.DataFrame = as_exact_pandas(rows)
        return found

    def sampled(self, days: Days, maximum: int, seed: int, engine: FeatureEngine) -> "pd.DataFrame":
        """At most `maximum` of the events of `days`, with the columns of the spec, by id; `engine` draws them."""
        identity, columns = self.source.id_column, list(self.source.request_columns)
        sql = sample_sql(EVENTS, columns, quoted(identity), maximum, seed)
        drawn = engine.execute(sql, {}, {EVENTS: self.relation(days)})
        found: pd.DataFrame = as_exact_pandas(drawn.select(columns)).sort_values(identity, ignore_index=True)
        return found

    def thinned(self, days: Days, maximum: int) -> pa.Table:
        """All columns of the events of `days`; when these are more than `maximum`, of every n-th one."""
        stored, columns, wanted = self._scan(), feed_schema(self.source.events).names, _within(self._time, days)
        every = max(1, -(-stored.count_rows(filter=wanted) // maximum))
        scanner = stored.scanner(columns=columns, filter=wanted)
        kept = [batch.take(pa.array(range(0, batch.num_rows, every))) for batch in scanner.to_batches()]
        return pa.Table.from_batches(kept, scanner.projected_schema)

    def of_partition(self, partition: str, since: date | None, rows: int) -> Iterator[pa.Table]:
        """The events of a partition from `since` on (None: all), at most `rows` at a time, with the columns of the spec
        in their types."""
        schema = feed_schema(self.source.events)
        held: list[pa.RecordBatch] = []
        for batch in self._partition(partition, since, schema.names, rows):
            if held and sum(each.num_rows for each in held) + batch.num_rows > rows:
                yield pa.Table.from_batches(held).cast(schema)
                held = []
            held.append(batch)
        if held:
            yield pa.Table.from_batches(held).cast(schema)

    def relation(self, days: Days, partition: str | None = None, since: date | None = None) -> LakeRows:
        """The events of `days` from `since` on (None: all), of `partition` (None: of any), for an engine."""
        start, uri = max(days.start, since or days.start), self.lake.uri(EVENTS)
        within = {} if partition is None else {PARTITION: partition}
        return LakeRows(uri, self._scan(), self._time, midnight(start), midnight(days.end), within)

    def days_of_partition(self, partition: str, since: date | None) -> set[date]:
        """The days on which it has events from `since` on (None: all)."""
        found: set[date] = set()
        for batch in self._partition(partition, since, [self._time], _BATCH_ROWS):
            found |= set(pc.unique(batch[self._time].cast(pa.date32(), safe=False)).to_pylist())
        return found

    def _partition(self, partition: str, since: date | None, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        wanted = _between(self._time, since, None) & (ds.field(PARTITION) == partition)
        # Reading ahead takes memory.
        ahead = {"batch_readahead": 1, "fragment_readahead": 1}
        batches = self._scan().scanner(columns=columns, filter=wanted, batch_size=rows, **ahead).to_batches()
        return (batch for batch in batches if batch.num_rows)

    def days(self, first: date, last: date) -> set[date]:
        """The days from `first` to `last`, both in, that have events."""
        inside = _between(self._time, first, last + timedelta(days=1))
        times = self._scan().to_table([self._time], filter=inside)[self._time]
        return set(pc.unique(times.cast(pa.date32(), safe=False)).to_pylist())

    def any_before(self, day: date) -> bool:
        older = self._scan().filter(ds.field(self._time) < midnight(day))
        return older.head(1, columns=[self._time]).num_rows > 0

    def first_seen(self, entity: str, entities: Collection[Any]) -> "pd.Series":
        """When each of these `entities`, values of the column `entity`, had its first event: entity → time."""
        wanted = ds.field(entity).isin(pa.array(entities))
        rows = self._scan().to_table([entity, self._time], filter=wanted)
        first = rows.group_by(entity).aggregate([(self._time, "min")])
        found: pd.Series = as_exact_pandas(first).set_index(entity)[f"{self._time}_min"]
        return found

    def ids_of(self, entity: str, value: Any) -> set[Any]:
        """The ids of the events that have `value` in the column `entity`."""
        name = self.source.id_column
        return set(self._scan().to_table([name], filter=ds.field(entity) == value)[name].to_pylist())

    def entity_days(self, entity: str, entities: Collection[Any], days: Days) -> "pd.DataFrame":
        """On which of `days` each of these `entities`, values of the column `entity`, had events: a row for each such
        pair, with the columns `entity` and `day`.

        It takes the memory of the pairs, not of the events.
        """
        within = _within(self._time, days)
        wanted = within & ds.field(entity).isin(pa.array(entities))
        read = {name: ds.field(name) for name in (entity, self._time)}
        pair = {"entity": ds.field(entity), "day": pc.floor_temporal(ds.field(self._time), unit="day")}
        steps = [
            acero.Declaration("scan", acero.ScanNodeOptions(self._scan(), columns=read, filter=within)),
            acero.Declaration("filter", acero.FilterNodeOptions(wanted)),
            acero.Declaration("project", acero.ProjectNodeOptions(list(pair.values()), list(pair))),
            acero.Declaration("aggregate", acero.AggregateNodeOptions([], list(pair))),
        ]
        pairs = acero.Declaration.from_sequence(steps).to_table()
        days_of = pairs["day"].cast(pa.timestamp("us"))  # In UTC, without a zone.
        found: pd.DataFrame = as_exact_pandas(pa.table({"entity": pairs["entity"], "day": days_of}))
        return found

    def first(self) -> datetime | None:
        """The time of the first event."""
        found: datetime | None = pc.min(self._scan().to_table([self._time])[self._time]).as_py()
        return found


@dataclass(frozen=True)
class Labels:
    """The label that the model learns. `version`, of the table of its feed; None: no label has come yet.

    Which of several reports counts: see training/domain/labels.py.
    """

    lake: Lake
    spec: ModelSpec
    version: int | None

    @property
    def _reported(self) -> str:
        return self.spec.label_spec.time_column

    def newest_report(self) -> datetime | None:
        """When the newest label was reported."""
        if self.version is None:
            return None
        found: datetime | None = pc.max(self._reports(_between(self._reported, None, None))[self._reported]).as_py()
        return found

    def known_at(self, as_of: date | None, ids: "pd.Series | None" = None) -> "pd.DataFrame":
        """For each event with a report before `as_of` (None: any), the label that counts.

        Columns: the id, `_label` (null: none by design), `_reported_at`. `ids`: only of these events. There is no lower
        bound in time: a report may come before its event. Events without a report are for `labelled` in
        training/domain/labels.py.
        """
        from training.domain.labels import newest

        wanted = _between(self._reported, None, as_of)
        if ids is not None:
            name, asked = self.spec.source.id_column, pa.array(ids.dropna().unique(), from_pandas=True)
            if pa.types.is_null(asked.type):  # No event: Arrow does not look for nulls among texts.
                asked = asked.cast(self._schema.field(name).type)
            wanted &= ds.field(name).isin(asked)
        return newest(self._reports(wanted), self.spec.label_spec)

    @property
    def _schema(self) -> pa.Schema:
        return feed_schema(self.spec.source.feeds[self.spec.label_spec.feed])

    def _reports(self, wanted: ds.Expression) -> pa.Table:
        label = self.spec.label_spec
        return _reports(self.lake, label.feed, self.version, self._schema, [label], wanted, all_columns=False)


def reports_relation(
    lake: Lake,
    source: SourceSpec,
    feed: str,
    version: int | None,
    events: LakeRows | pa.Table,
    since: date,
    until: date,
) -> MadeRows:
    """What feature SQL reads as the feed of labels `feed`: the reports from `since` and before `until`, one for each
    event and time.

    Where the spec says `unlabelled_after_delay: negative`, with the reports that stand for silence on `events`.
    `version` None: no label has come yet.
    """
    labels, schema, time = source.labels_of(feed), feed_schema(source.feeds[feed]), source.events.time_column
    read: LakeRows | pa.Table = schema.append(pa.field(PARTITION, pa.string())).empty_table()
    if version is not None:
        rows = lake.scan(feed, version, schema)
        read = LakeRows(lake.uri(feed), rows, labels[0].time_column, midnight(since), midnight(until))
    silence = labels[0].unlabelled_after_delay != "missing"

    def make() -> pa.Table:
        from training.domain.labels import implied_reports, one_per_report

        wanted = _between(labels[0].time_column, since, until)
        reports = one_per_report(_reports(lake, feed, version, schema, labels, wanted, all_columns=True), labels)
        if not silence:
            return reports
        known = (events.dataset() if isinstance(events, LakeRows) else ds.dataset(events)).to_table(
            [source.id_column, time]
        )
        return pa.concat_tables([reports, implied_reports(known, time, reports, labels, midnight(until))])

    said, asked = f"_reports_of_{feed}", f"_events_of_{feed}"
    sql = reports_sql(said, read.schema, labels, asked if silence else None, time, until)
    return MadeRows(read.schema, make, sql, {said: read, **({asked: events} if silence else {})})


def _reports(
    lake: Lake,
    feed: str,
    version: int | None,
    schema: pa.Schema,
    labels: Sequence[LabelColumn],
    wanted: ds.Expression,
    all_columns: bool,
) -> pa.Table:
    if version is None:
        return schema.append(pa.field("partition", pa.string())).empty_table()
    identity, time = labels[0].id_column, labels[0].time_column
    names = list(dict.fromkeys([identity, *(label.column for label in labels), time, "partition"]))
    wanted = wanted & ds.field(identity).is_valid()
    if not any(label.nullable for label in labels):
        # Reports from before the spec named its columns as it does now say nothing about the event's label.
        wanted &= functools.reduce(operator.or_, (ds.field(label.column).is_valid() for label in labels))
    return lake.scan(feed, version, schema).to_table(None if all_columns else names, filter=wanted)


def feeds_read(lake: Lake, table: str, feeds: Collection[str], version: int | None = None) -> TableVersions:
    """The versions of `feeds` that the rows of a feature table were made of, at `version` (None: the newest).

    A feed that had no table then is left out.
    """
    found = {feed: lake.applied(table, feed_application(feed), version) for feed in feeds}
    return {feed: number for feed, number in found.items() if number is not None}


@dataclass(frozen=True)
class FeatureDays:
    """Which days a feature table has rows of. `version` None: it has none yet."""

    lake: Lake
    table: str
    version: int | None

    def lacking(self, days: Collection[date], events: Events) -> list[date]:
        """Those of `days` whose rows were not computed, in order.

        A day has no rows by nature when no event lies in the days that they are made of, as after a winter without
        events and on the very first day of all.
        """
        if not days:
            return []
        found = sorted(set(days) - self.within(Days(start=min(days), end=max(days) + timedelta(days=1))))
        if not found:
            return []
        source = events.source
        label = source.features.tables[self.table].label
        back, delay = source.history_of(self.table), source.labels[label].delay_days if label else 0
        filled = events.days(found[0] - timedelta(days=back), found[-1])
        return [day for day in found if any(day - timedelta(days=n) in filled for n in range(delay + 1, back + 1))]

    def within(self, days: Days) -> set[date]:
        """Those of `days` that have rows."""
        if self.version is None:
            return set()
        inside = (ds.field("day") >= days.start) & (ds.field("day") < days.end)
        rows = self.lake.scan(self.table, self.version).to_table(["day"], filter=inside)
        return set(pc.unique(rows["day"]).to_pylist())


def _within(column: str, days: Days) -> ds.Expression:
    return (ds.field(column) >= midnight(days.start)) & (ds.field(column) < midnight(days.end))


def _between(column: str, since: date | None, until: date | None) -> ds.Expression:
    found = ds.field(column).is_valid()
    if since is not None:
        found &= ds.field(column) >= midnight(since)
    if until is not None:
        found &= ds.field(column) < midnight(until)
    return found
