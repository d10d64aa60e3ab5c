"""The handbook's files as a landing folder."""

from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from local.handbook import convert, main
from training.contract.errors import ExitCode, InputError
from training.contract.model_spec import ModelSpec
from training.domain.arrow_types import feed_schema

DAY = date(2018, 4, 1)


def handbook_day(day: date, first_id: int) -> pa.Table:
    """Three payments as the handbook's simulator writes them."""
    times = [datetime(day.year, day.month, day.day, hour, 0, 31) for hour in (0, 12, 23)]
    return pa.table(
        {
            "TRANSACTION_ID": [first_id, first_id + 1, first_id + 2],
            "TX_DATETIME": pa.array(times, pa.timestamp("us")),
            "CUSTOMER_ID": [596, 4961, 2],
            "TERMINAL_ID": [3156, 3412, 1365],
            "TX_AMOUNT": [57.16, 81.51, 146.0],
            "TX_TIME_SECONDS": [31, 43231, 82831],
            "TX_TIME_DAYS": [0, 0, 0],
            "TX_FRAUD": [0, 1, 0],
            "TX_FRAUD_SCENARIO": [0, 2, 0],
        }
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five days of the handbook."""
    folder = tmp_path / "handbook"
    folder.mkdir()
    for number in range(5):
        day = DAY + timedelta(days=number)
        pq.write_table(handbook_day(day, 3 * number), folder / f"{day}.parquet")
    return folder


def landed(landing: Path) -> list[str]:
    return sorted(str(path.relative_to(landing / "card_payments")) for path in landing.rglob("*.parquet"))


def test_each_day_becomes_events_and_labels_seven_days_later(data: Path, tmp_path: Path, spec: ModelSpec) -> None:
    paths = list(convert(data, tmp_path / "landing", "card_payments"))
    assert len(paths) == 10
    events = pq.read_table(tmp_path / "landing/card_payments/events/2018-04-02.parquet")
    labels = pq.read_table(tmp_path / "landing/card_payments/labels/2018-04-09.parquet")
    assert events.schema == feed_schema(spec.source.events)
    assert labels.schema == feed_schema(spec.source.feeds["labels"])
    assert events["transaction_id"].to_pylist() == labels["transaction_id"].to_pylist() == [3, 4, 5]
    assert labels["is_fraud"].to_pylist() == [0, 1, 0]
    for made, reported in zip(events["event_time"].to_pylist(), labels["reported_at"].to_pylist(), strict=True):
        assert made.date() == date(2018, 4, 2)
        assert reported - made == timedelta(days=7)


def test_days_can_be_chosen_and_put_together(data: Path, tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    list(convert(data, landing, "card_payments", DAY + timedelta(days=1), DAY + timedelta(days=3), days_per_file=2))
    assert landed(landing) == [
        "events/2018-04-02_2018-04-03.parquet",
        "events/2018-04-04.parquet",
        "labels/2018-04-09_2018-04-10.parquet",
        "labels/2018-04-11.parquet",
    ]


def test_a_gap_between_the_days_is_named(data: Path, tmp_path: Path) -> None:
    (data / "2018-04-03.parquet").unlink()
    with pytest.raises(InputError, match=r"no file for 1 of the days .* the first 2018-04-03"):
        list(convert(data, tmp_path / "landing", "card_payments"))
    assert landed(tmp_path / "landing") == []


def test_days_that_are_not_there_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the first 2018-03-30"):
        list(convert(data, tmp_path, "card_payments", first=date(2018, 3, 30)))
    with pytest.raises(InputError, match="is before the first"):
        list(convert(data, tmp_path, "card_payments", first=date(2018, 4, 3), last=date(2018, 4, 1)))


def test_pickles_are_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "pickles"
    folder.mkdir()
    (folder / "2018-04-01.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    assert main(["--data", str(folder), "--landing", str(tmp_path / "landing")]) == ExitCode.BAD_INPUT
    assert "to_parquet" in capsys.readouterr().err


def test_a_missing_column_and_a_broken_file_are_named(data: Path, tmp_path: Path) -> None:
    path = data / "2018-04-02.parquet"
    pq.write_table(handbook_day(DAY, 3).drop_columns("TX_AMOUNT"), path)
    with pytest.raises(InputError, match=r"2018-04-02\.parquet"):
        list(convert(data, tmp_path / "landing", "card_payments"))
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"2018-04-02\.parquet"):
        list(convert(data, tmp_path / "landing", "card_payments"))


def test_the_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--data", str(data), "--landing", str(tmp_path / "landing"), "--start", "2018-04-05"]
    assert main(arguments) == 0
    assert len(capsys.readouterr().out.split()) == 2
    assert landed(tmp_path / "landing") == ["events/2018-04-05.parquet", "labels/2018-04-12.parquet"]
    assert main(["--data", str(tmp_path / "nowhere"), "--landing", str(tmp_path)]) == ExitCode.BAD_INPUT
