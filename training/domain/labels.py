"""The label of an event at a given time: the last of the reports up to that time.

The report with the newest `reported_at` counts. Of reports with equal times, the one in the partition whose name sorts
last counts; within one partition, the one with the largest label. An event without a report has no label. If the spec
has `unlabelled_after_delay: negative`, it is negative from `delay_days` after its time on, until a report comes. A
label that was reported before its event is known from the event's time on, because the event did not exist before.

Where the label's column may be null, a report without a label says that the event has none by design, as a cancelled
flight has no delay. It counts as any other report does, but of reports with equal times one with a label counts.

Our own columns begin with an underscore, which names in a spec do not, because the two feeds may share any name.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from training.contract.model_spec import ModelSpec
from training.contract.source_spec import LabelColumn
from training.domain.arrow_types import all_distinct, as_exact_pandas
from training.domain.frames import LABEL, REPORTED_AT
from training.domain.windows import known_entities

#: The column of the lake with the name of the partition.
PARTITION = "partition"


def one_per_report(reports: pa.Table, labels: Sequence[LabelColumn]) -> pa.Table:
    """`reports` (columns of the feed of `labels`, and `partition`) with one row per event and reported time."""
    feed = labels[0]
    if all_distinct(reports[feed.id_column]):
        return reports
    return _last_of_each(reports, [feed.id_column, feed.time_column], [PARTITION, *(each.column for each in labels)])


def newest(reports: pa.Table, label: LabelColumn) -> pd.DataFrame:
    """One row per event in `reports`: its id, LABEL (null: it has none by design) and REPORTED_AT."""
    identity, reported = label.id_column, label.time_column
    last = _last_of_each(reports, [identity], [reported, PARTITION, label.column])
    columns = [last[identity], last[label.column], last[reported]]
    found: pd.DataFrame = as_exact_pandas(pa.table(columns, names=[identity, LABEL, REPORTED_AT]))
    return found


def _last_of_each(table: pa.Table, keys: list[str], order_by: list[str]) -> pa.Table:
    """The last row of each group of equal `keys`, in the order of the columns `order_by`."""
    order = dict.fromkeys([*keys, *order_by])
    table = table.take(pc.sort_indices(table, sort_keys=[(name, "ascending", "at_start") for name in order]))
    if table.num_rows < 2:
        return table
    same = [pc.fill_null(pc.equal(table[key][:-1], table[key][1:]), False) for key in keys]
    repeated = np.logical_and.reduce([each.to_numpy() for each in same])
    return table.filter(pa.array(np.append(~repeated, True)))


def labelled(events: pd.DataFrame, known: pd.DataFrame, spec: ModelSpec, until: datetime) -> pd.DataFrame:
    """The `events` (id and time) that have a label at `until`: those of `decided` whose LABEL is not null."""
    return with_label(decided(events, known, spec, until), known)


def with_label(found: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Those of `found` (`decided`, made of `known`) whose LABEL is not null."""
    found, kind = found[found[LABEL].notna()], known[LABEL].dtype
    if isinstance(kind, pd.api.extensions.ExtensionDtype):
        kind = kind.numpy_dtype  # Without nulls the integers need no nullable type.
    return found.astype({LABEL: kind})


def decided(events: pd.DataFrame, known: pd.DataFrame, spec: ModelSpec, until: datetime) -> pd.DataFrame:
    """The `events` (id and time) of which it is known at `until` what their label is, or that they have none.

    In their order, with LABEL (null: none by design) and REPORTED_AT. `known` has one row per event with a report
    before `until`, as `newest` returns it. REPORTED_AT is the time from which the label is known: not before the event.
    """
    # A merge would look twice whether the ids of `known` are distinct.
    reports = known.set_index(spec.source.id_column).reindex(events[spec.source.id_column])
    found = events.reset_index(drop=True)
    found = found.assign(**{name: reports[name].array for name in (LABEL, REPORTED_AT)})
    found[REPORTED_AT] = _known_since(found[REPORTED_AT], found[spec.source.events.time_column])
    if spec.label_spec.unlabelled_after_delay == "negative":
        matured = found[spec.source.events.time_column] + timedelta(days=spec.label_spec.delay_days)
        silent = found[REPORTED_AT].isna() & (matured < until)
        found[REPORTED_AT] = found[REPORTED_AT].mask(silent, matured)
        # Booleans with nulls are Python objects, and a 0 among them could not be stored.
        found[LABEL] = found[LABEL].mask(silent, False if known[LABEL].dtype == object else 0)
    return found[found[REPORTED_AT].notna()]


def implied_reports(
    events: pa.Table, event_time: str, reports: pa.Table, labels: Sequence[LabelColumn], until: datetime
) -> pa.Table:
    """The reports that `unlabelled_after_delay: negative` implies: all `labels` 0, `delay_days` after the event.

    There is one for each of `events` (id and `event_time`) whose delay ended before `until` and that had no report by
    then. `labels`: those of the feed of `reports`, with one delay. The columns are those of `reports`; columns other
    than id, labels and time are null.
    """
    identity, reported = labels[0].id_column, labels[0].time_column
    matured = pc.add(events[event_time], pa.scalar(timedelta(days=labels[0].delay_days)))
    frame = as_exact_pandas(pa.table([events[identity], matured], [identity, REPORTED_AT]))
    first = as_exact_pandas(pa.table([reports[identity], reports[reported]], [identity, "_first"]))
    first = first.groupby(identity, as_index=False)["_first"].min()
    frame = frame.merge(first, on=identity, how="left")
    silent = (frame[REPORTED_AT] < until) & ~(frame["_first"] <= frame[REPORTED_AT])
    frame = frame[silent]
    columns = {field.name: pa.nulls(len(frame), field.type) for field in reports.schema}
    columns[identity] = pa.array(frame[identity], reports.schema.field(identity).type)
    columns[reported] = pa.array(frame[REPORTED_AT], reports.schema.field(reported).type)
    for label in labels:
        zeros = pa.array([0] * len(frame), pa.int64())
        columns[label.column] = zeros.cast(reports.schema.field(label.column).type)
    return pa.table(columns, schema=reports.schema)


def known_before(rows: pd.DataFrame, known: pd.DataFrame, events: pd.DataFrame, spec: ModelSpec) -> np.ndarray:
    """Bool [n]: whether a positive label of the row's entity was known at the start of the row's day.

    `rows` have the entity and the event's time. `known` are labels as `newest` returns them. Only positive labels of
    `events` (id, time and entity) count.
    """
    identity, entity, time = spec.source.id_column, spec.evaluation.entity, spec.source.events.time_column
    # Under a name of ours: the entity may be the id, and the columns of `known` are ours but for the id.
    named = events[list(dict.fromkeys([identity, entity, time]))].rename(columns={time: "_time"})
    positives = known.loc[known[LABEL] == 1, [identity, LABEL, REPORTED_AT]].merge(named, on=identity)
    since = _known_since(positives[REPORTED_AT], positives["_time"])
    return known_entities(rows[entity], rows[time], positives[entity], since)


def _known_since(reported: pd.Series, event_times: pd.Series) -> pd.Series:
    """When each label became known: when it was reported, but not before its event. NaT without a report."""
    return reported.mask(reported < event_times, event_times)
