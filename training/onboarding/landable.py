"""Makes rows that ingest accepts from those of a sample: with the names of the spec, and an id where there is none."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.contract.columns import Column
from training.contract.errors import InputError
from training.contract.feeds import FeedSpec
from training.domain.arrow_types import utc_days
from training.onboarding.keys import MADE_ID
from training.onboarding.sample import Sample
from training.onboarding.times import to_times


def landable(sample: Sample, feed: FeedSpec, positive: str = "") -> pa.Table:
    """The columns of `feed`, in the order of their times. Columns that the spec does not name are left out.

    Texts, dates and numbers of seconds become timestamps, and a text label becomes 1 where it is `positive`, else 0.
    Values are not changed in other ways: ingest converts and checks them. Raises InputError when a column is missing or
    is not a time.
    """
    by_name = {name.lower(): name for name in sample.table.column_names}
    made_id = feed.id_column == MADE_ID and MADE_ID not in by_name
    wanted = [name for name in feed.columns if not (made_id and name == MADE_ID)]
    if missing := [name for name in wanted if name.lower() not in by_name]:
        what = f"{sample.path} has no column {', '.join(missing)}, which the spec names"
        raise InputError(what, f"Its columns: {', '.join(sample.table.column_names)}.")
    columns = {
        name: _converted(sample, name, sample.table[by_name[name.lower()]], feed.columns[name], positive)
        for name in wanted
    }
    times = columns[feed.time_column]
    if times.null_count:
        what = f"{sample.path}: {feed.time_column} is missing in {times.null_count:,} rows"
        raise InputError(what, "Every row needs a time: leave these rows out.")
    table = pa.table(columns)
    # Stable, so that rows of one time keep the order of the file.
    table = table.take(pc.sort_indices(table, [(feed.time_column, "ascending")]))
    return _with_id(table, feed) if made_id else table


def _converted(sample: Sample, name: str, values: pa.ChunkedArray, column: Column, positive: str) -> pa.ChunkedArray:
    if column.kind == "timestamp":
        times = to_times(values)
        if times is None:
            what = f"{sample.path}: {name} is {values.type}, not a time, or one is too far away for microseconds"
            raise InputError(what, "Deliver timestamps, dates, text in ISO 8601 or whole seconds since 1970.")
        return times
    if column.kind == "int" and pt.is_string(values.type):
        if not positive or column.values is None or not set(column.values) <= {0, 1}:
            what = f"{sample.path}: {name} is text, and {column.type} in the spec"
            raise InputError(what, "Say which text is 1: POSITIVE=<text>. All others become 0.")
        return pc.equal(values, positive).cast(pa.int64())
    return values


def _with_id(table: pa.Table, feed: FeedSpec) -> pa.Table:
    """With the day and the number of the row within it, which a longer file of the same rows gives as well."""
    days = utc_days(table[feed.time_column]).to_pylist()
    ids, day, number = [], None, 0
    for each in days:
        number = number + 1 if each == day else 1
        day = each
        ids.append(f"{day}-{number:06d}")
    return table.add_column(0, MADE_ID, pa.array(ids))
