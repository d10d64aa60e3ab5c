"""Lands the rows of a Parquet or CSV file as partitions of a source.

    python -m local.land --source NAME --landing DIR --data sample.parquet --labels labels.parquet

History goes into partitions of several days and the newest days into one partition each, because every partition is a
run of the data DAG.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from local.landing import land_table, landing_parser, positive, print_landed, split
from training.contract.base import Days, midnight
from training.contract.errors import InputError, StepError
from training.contract.feeds import EVENTS, FeedSpec
from training.contract.source_spec import SourceSpec, load_source_spec
from training.onboarding.complete_days import all_days, complete_days
from training.onboarding.landable import landable
from training.onboarding.rules import DAYS_PER_FILE
from training.onboarding.sample import Sample, read_sample
from training.settings import load_settings

log = logging.getLogger("perennial")

_DAY = timedelta(days=1)


def land(
    landing: Path,
    spec: SourceSpec,
    samples: dict[str, Sample],
    first: date | None = None,
    last: date | None = None,
    days_per_file: int = DAYS_PER_FILE,
    single_days: int = 3,
    positive_text: str = "",
) -> Iterator[Path]:
    """Land the rows of each feed's sample of the days `first` … `last` (None: from the first and to the last day of
    which a sample of events has all rows) and yield each file.

    The newest `single_days` get a partition each, the days before them share one by `days_per_file`. Events come first.
    When a day of events is omitted because the sample lacks a part of it, so are the labels of its events, on whatever
    day they were known. Raises InputError when a sample has other columns than the spec, or no rows on these days.
    """
    omitted: pa.ChunkedArray | None = None
    for feed in [name for name in spec.feed_names if name in samples]:
        of, rows = spec.feeds[feed], landable(samples[feed], spec.feeds[feed], positive_text)
        if feed != EVENTS and omitted is not None:
            rows = _without(rows, of.id_column, omitted, samples[feed].path)
        if feed != EVENTS and not rows.num_rows:
            continue
        present = all_days(rows[of.time_column])
        whole = complete_days(rows[of.time_column]) if feed == EVENTS else present
        start = max(present.start, first) if first else whole.start
        end = min(present.end, last + _DAY) if last else whole.end
        if start >= end:
            raise InputError(f"{samples[feed].path} has rows of {present} only", "Choose other days.")
        if days := _lacking(present, whole, first, last):
            log.warning("Omitted %s, of which %s lacks a part", " and ".join(map(str, days)), samples[feed].path)
            parts = [_between(rows, of, Days(start=day, end=day + _DAY)) for day in days]
            omitted = pa.concat_tables(parts)[of.id_column]
        for span in _partitions(Days(start=start, end=end), days_per_file, single_days):
            if (part := _between(rows, of, span)).num_rows:
                yield land_table(part, landing, spec.name, feed, span)


def _lacking(present: Days, whole: Days, first: date | None, last: date | None) -> list[date]:
    """The first and the last day of a sample, if they are left out because the sample does not have all their rows."""
    found = [present.start] if first is None and present.start < whole.start else []
    return found + ([present.end - _DAY] if last is None and whole.end < present.end else [])


def _without(rows: pa.Table, column: str, events: pa.ChunkedArray, path: Path) -> pa.Table:
    """`rows` without those of `events`, which are ids. Files of events and labels may have them in different types."""
    of_them = pc.is_in(rows[column].cast(pa.string()), value_set=events.cast(pa.string()).combine_chunks())
    if found := pc.sum(of_them).as_py():
        log.warning("Omitted %s rows of %s, which belong to events of omitted days", f"{found:,}", path)
    return rows.filter(pc.invert(of_them))


def _partitions(days: Days, per_file: int, single: int) -> list[Days]:
    cut = max(days.start, days.end - single * _DAY)
    history = split(Days(start=days.start, end=cut), per_file) if cut > days.start else []
    return [*history, *(split(Days(start=cut, end=days.end), 1) if cut < days.end else [])]


def _between(rows: pa.Table, feed: FeedSpec, days: Days) -> pa.Table:
    times = rows[feed.time_column]
    return rows.filter(pc.and_(pc.greater_equal(times, _at(days.start)), pc.less(times, _at(days.end))))


def _at(day: date) -> pa.Scalar:
    at: datetime = midnight(day)
    return pa.scalar(at, pa.timestamp("us", tz="UTC"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = landing_parser("local.land", "Land the rows of a file as partitions of a source.", "")
    parser.set_defaults(days_per_file=DAYS_PER_FILE)
    parser.add_argument("--data", type=Path, help="a Parquet or CSV file of events, or a folder of them")
    parser.add_argument("--labels", type=Path, help="the same of labels, if they are in a file of their own")
    parser.add_argument("--labels-feed", default="", help="the feed of the labels (default: the only one)")
    parser.add_argument("--single-days", type=positive, default=3, help="the newest days with a partition each")
    parser.add_argument("--positive", default="", help="the text of a label that becomes 1")
    args = parser.parse_args(argv)
    try:
        spec = load_source_spec(args.source, load_settings().feature_repo)
        samples = {EVENTS: read_sample(args.data)} if args.data else {}
        if args.labels:
            samples[_labels_feed(spec, args.labels_feed)] = read_sample(args.labels)
        if not samples:
            raise InputError("There is nothing to land", "Name a file: make land NAME=… DATA=… or LABELS=….")
        days = (args.start, args.end, args.days_per_file, args.single_days)
        return print_landed(land(args.landing, spec, samples, *days, args.positive))
    except StepError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _labels_feed(spec: SourceSpec, wanted: str) -> str:
    feeds = [wanted] if wanted else spec.label_feeds
    if len(feeds) != 1 or feeds[0] not in spec.label_feeds:
        what = f"{spec.name} has the feeds of labels {', '.join(spec.label_feeds) or '(none)'}"
        raise InputError(what, "Name one: ARGS='--labels-feed NAME'.")
    return feeds[0]


if __name__ == "__main__":
    sys.exit(main())
