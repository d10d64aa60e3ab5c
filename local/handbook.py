"""Lands the payments of the Fraud Detection Handbook, with each label seven days after its payment.

    python -m local.handbook --data DIR --landing DIR --start 2018-04-01 --end 2018-04-30

`DIR` holds one Parquet file per day, `2018-04-01.parquet` …, with at least the columns TRANSACTION_ID, TX_DATETIME,
CUSTOMER_ID, TERMINAL_ID, TX_AMOUNT and TX_FRAUD of the handbook's simulated data
(https://github.com/Fraud-Detection-Handbook/simulated-data-raw). Its times have no zone and are taken as UTC.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from local.landing import EVENTS_SCHEMA, LABELS_SCHEMA, land_table, landing_parser, print_landed, split
from training.contract.base import Days
from training.contract.errors import InputError

LABEL_DELAY = timedelta(days=7)
#: The columns of an event, in the order of its schema.
_EVENT_COLUMNS = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT")
_FRAUD = "TX_FRAUD"


def convert(
    data: Path, landing: Path, source: str, first: date | None = None, last: date | None = None, days_per_file: int = 1
) -> Iterator[Path]:
    """Land the days `first` … `last` (both in; None: all there are) and their labels; yields each file landed.

    Raises InputError when `data` holds no daily Parquet files, has a gap between them, or when a file lacks a column.
    """
    files = _daily_files(data)
    first, last = first or min(files), last or max(files)
    if last < first:
        raise InputError(f"The last day {last} is before the first, {first}", "Swap --start and --end.")
    days = Days(start=first, end=last + timedelta(days=1))
    missing = [day for day in _each(days) if day not in files]
    if missing:
        hint = f"There are files from {min(files)} to {max(files)}: check --start and --end, or add the missing files."
        raise InputError(f"{data} has no file for {len(missing)} of the days {days}, the first {missing[0]}", hint)
    for part in split(days, days_per_file):
        rows = pa.concat_tables([_read(files[day]) for day in _each(part)])
        yield land_table(_events(rows), landing, source, "events", part)
        reported = Days(start=part.start + LABEL_DELAY, end=part.end + LABEL_DELAY)
        yield land_table(_labels(rows), landing, source, "labels", reported)


def _each(days: Days) -> list[date]:
    return [days.start + timedelta(days=at) for at in range(len(days))]


def _daily_files(data: Path) -> dict[date, Path]:
    if not data.is_dir():
        raise InputError(f"{data} is not a folder", "Name the folder with the daily files by --data.")
    files = {}
    for path in data.glob("*.parquet"):
        try:
            files[date.fromisoformat(path.stem)] = path
        except ValueError:
            continue
    if files:
        return files
    if any(data.glob("*.pkl")):
        hint = (
            "A pickle can run any code, so this program opens none. Convert those that you trust: "
            "for each day, pandas.read_pickle('2018-04-01.pkl').to_parquet('2018-04-01.parquet')."
        )
        raise InputError(f"{data} holds pickles, not Parquet files", hint)
    raise InputError(f"{data} holds no files named like 2018-04-01.parquet", "Name the folder by --data.")


def _read(path: Path) -> pa.Table:
    """The columns that are needed, in the spec's types, times in UTC."""
    wanted = [*_EVENT_COLUMNS, _FRAUD]
    try:
        rows = pq.read_table(path, columns=wanted)
        times = rows["TX_DATETIME"]
        if not pa.types.is_timestamp(times.type) or times.type.tz is None:
            times = pc.assume_timezone(times.cast(pa.timestamp("us")), "UTC")
        rows = rows.set_column(rows.schema.get_field_index("TX_DATETIME"), "TX_DATETIME", times)
        types = [*EVENTS_SCHEMA.types, pa.int64()]
        return rows.select(wanted).cast(pa.schema(list(zip(wanted, types, strict=True))))
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise InputError(f"Cannot read {path}: {error}", f"It needs the columns {', '.join(wanted)}.") from error


def _events(rows: pa.Table) -> pa.Table:
    return rows.select(_EVENT_COLUMNS).rename_columns(EVENTS_SCHEMA.names)


def _labels(rows: pa.Table) -> pa.Table:
    reported = pc.add(rows["TX_DATETIME"], pa.scalar(LABEL_DELAY, pa.duration("us")))
    return pa.table([rows["TRANSACTION_ID"], rows[_FRAUD], reported], schema=LABELS_SCHEMA)


def main(argv: Sequence[str] | None = None) -> int:
    parser = landing_parser("local.handbook", "Land the handbook's payments.", "card_payments")
    parser.add_argument("--data", type=Path, required=True, help="the folder with the daily Parquet files")
    args = parser.parse_args(argv)
    return print_landed(convert(args.data, args.landing, args.source, args.start, args.end, args.days_per_file))


if __name__ == "__main__":
    sys.exit(main())
