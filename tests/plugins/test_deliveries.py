"""Which files count as deliveries, in which order they are taken in, and which of them are new."""

import os
import time
from pathlib import Path

from perennial_airflow.deliveries import Announced, Delivery, scan


def land(folder: Path, name: str, content: str = "x") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def later(seconds: float = 60) -> float:
    return time.time() + seconds


def keys(deliveries: list[Delivery]) -> list[str]:
    return [delivery.key for delivery in deliveries]


def test_older_days_first_and_events_before_the_labels_of_the_same_day(tmp_path: Path) -> None:
    for name in ("labels/2026-01-19", "events/2026-01-20", "events/2026-01-19", "labels/2026-01-05_2026-01-18"):
        land(tmp_path, f"{name}.parquet")
    land(tmp_path, "events/2026-01-05_2026-01-18.parquet")
    assert keys(scan(str(tmp_path), later())) == [
        "events/2026-01-05_2026-01-18",
        "labels/2026-01-05_2026-01-18",
        "events/2026-01-19",
        "labels/2026-01-19",
        "events/2026-01-20",
    ]


def test_only_whole_parquet_files_of_the_two_feeds_count(tmp_path: Path) -> None:
    for name in ("events/.2026-01-05.parquet", "events/2026-01-05.csv", "other/2026-01-05.parquet"):
        land(tmp_path, name)
    assert scan(str(tmp_path), later()) == []
    assert scan(str(tmp_path / "missing"), later()) == []


def test_a_file_counts_once_it_has_settled_whatever_its_modification_time_says(tmp_path: Path) -> None:
    path = land(tmp_path, "events/2026-01-05.parquet")
    os.utime(path, (0, 0))
    written = path.stat().st_ctime
    assert scan(str(tmp_path), written + 1.9, settle_seconds=2) == []
    assert keys(scan(str(tmp_path), written + 2.1, settle_seconds=2)) == ["events/2026-01-05"]


def test_an_odd_name_is_a_delivery_too_with_an_id_that_airflow_takes(tmp_path: Path) -> None:
    land(tmp_path, "events/märz 5.parquet")
    (odd,) = scan(str(tmp_path), later())
    assert odd.partition == "märz 5"
    assert odd.run_id(1) == f"events_m-rz-5_1_{odd.fingerprint}"


def test_what_has_been_announced_is_not_new_until_it_changes(tmp_path: Path) -> None:
    path = land(tmp_path, "events/2026-01-05.parquet")
    land(tmp_path, "events/2026-01-06.parquet")
    announced = Announced()
    first, second = scan(str(tmp_path), later())
    announced.add(first)
    assert announced.new(scan(str(tmp_path), later())) == [second]

    path.write_text("corrected")
    announced = Announced(announced.stored())
    (corrected, _) = announced.new(scan(str(tmp_path), later()))
    assert corrected.key == first.key
    assert announced.number(corrected) == 2
    assert corrected.run_id(2) != first.run_id(2)


def test_a_return_to_an_earlier_file_is_a_delivery_of_its_own() -> None:
    original, correction = Delivery("events", "2026-01-05", "aaaa"), Delivery("events", "2026-01-05", "bbbb")
    announced, ids = Announced(), []
    for delivery in (original, correction, original):
        assert announced.new([delivery])
        ids.append(delivery.run_id(announced.number(delivery)))
        announced.add(delivery)
    assert ids == ["events_2026-01-05_1_aaaa", "events_2026-01-05_2_bbbb", "events_2026-01-05_3_aaaa"]
