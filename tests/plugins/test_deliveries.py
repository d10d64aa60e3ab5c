"""Which files count as deliveries, in which order they are taken in, and which of them are new."""

import os
import time
from pathlib import Path

from perennial_airflow.deliveries import Announced, Delivery, Reported, Stray, scan, strays

FEEDS = ("events", "labels")


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
    assert keys(scan(str(tmp_path), FEEDS, later())) == [
        "events/2026-01-05_2026-01-18",
        "labels/2026-01-05_2026-01-18",
        "events/2026-01-19",
        "labels/2026-01-19",
        "events/2026-01-20",
    ]


def test_only_whole_parquet_files_of_the_two_feeds_count(tmp_path: Path) -> None:
    for name in (
        "events/.2026-01-05.parquet",
        "events/_2026-01-05.parquet",
        "events/2026-01-05.csv",
        "other/x.parquet",
    ):
        land(tmp_path, name)
    assert scan(str(tmp_path), FEEDS, later()) == []
    assert scan(str(tmp_path / "missing"), FEEDS, later()) == []


def test_the_ending_may_be_in_capitals_and_the_real_name_is_kept(tmp_path: Path) -> None:
    land(tmp_path, "events/2026-01-05.PARQUET")
    (delivery,) = scan(str(tmp_path), FEEDS, later())
    assert (delivery.partition, delivery.name) == ("2026-01-05", "2026-01-05.PARQUET")


def test_a_folder_of_part_files_counts_when_its_writer_says_that_it_is_whole(tmp_path: Path) -> None:
    for part in (0, 1):
        land(tmp_path, f"events/2026-01-05.parquet/part-{part}.parquet")
    assert scan(str(tmp_path), FEEDS, later()) == []
    land(tmp_path, "events/2026-01-05.parquet/_SUCCESS", "")
    (delivery,) = scan(str(tmp_path), FEEDS, later())
    assert (delivery.key, delivery.name) == ("events/2026-01-05", "2026-01-05.parquet")
    land(tmp_path, "events/2026-01-05.parquet/part-1.parquet", "corrected")
    (corrected,) = scan(str(tmp_path), FEEDS, later())
    assert corrected.fingerprint != delivery.fingerprint


def test_of_two_names_for_a_partition_one_is_taken_in(tmp_path: Path) -> None:
    """Else each look would find the other one new."""
    land(tmp_path, "events/2026-01-05.PARQUET")
    land(tmp_path, "events/2026-01-05.parquet", "another")
    (delivery,) = scan(str(tmp_path), FEEDS, later())
    assert delivery.name == "2026-01-05.parquet"


def test_what_is_not_understood_is_told_with_the_reason(step_settings: Path) -> None:
    landing = step_settings / "landing"
    for name in (
        "card_payments/events/2026-01-05.csv",
        "card_payments/events/2026-01-06.parquet.gz",
        "card_payments/events/2026-01-07.parquet/part-0.parquet",
        "card_payments/events/2026-01-08.PARQUET",
        "card_payments/events/2026-01-08.parquet",
        "card_payments/events/2026/01.parquet",
        "card_payments/Labels/2026-01-05.parquet",
        "card_payments/2026-01-05.parquet",
        "cardpayments/events/2026-01-05.parquet",
        "readme.txt",
        # Nobody is told of these.
        "card_payments/events/2026-01-09.parquet",
        "card_payments/events/.2026-01-10.parquet",
        "card_payments/events/_temporary/0/part-0.parquet",
        "card_payments/_checkpoint/1",
        ".cache/1",
    ):
        land(landing, name)
    assert {stray.path: stray.why for stray in strays("card_payments", FEEDS)} == {
        "card_payments/2026-01-05.parquet": "a file beside the feeds' folders events and labels",
        "card_payments/Labels/": "the feeds' folders are events and labels, in lower case",
        "card_payments/events/2026-01-05.csv": "its name is not <partition>.parquet",
        "card_payments/events/2026-01-06.parquet.gz": "its name is not <partition>.parquet",
        "card_payments/events/2026-01-07.parquet/": (
            "a folder without _SUCCESS: its writer has not finished, or does not mark it as complete"
        ),
        "card_payments/events/2026-01-08.PARQUET": "the same partition as 2026-01-08.parquet, which is ingested",
        "card_payments/events/2026/": "its name is not <partition>.parquet",
        "cardpayments/": "no source has this name; the sources are card_payments, flights",
        "readme.txt": "a file beside the sources' folders",
    }


def test_each_stray_is_told_once_and_again_when_it_comes_back() -> None:
    lies, other = Stray("m/Labels/", "why"), Stray("m/x.csv", "why")
    reported = Reported()
    assert reported.new([lies]) == [lies]
    reported = Reported(Reported.stored([lies]))
    assert reported.new([lies, other]) == [other]
    assert Reported(Reported.stored([])).new([lies]) == [lies]


def test_a_file_counts_once_it_has_settled_whatever_its_modification_time_says(tmp_path: Path) -> None:
    path = land(tmp_path, "events/2026-01-05.parquet")
    os.utime(path, (0, 0))
    written = path.stat().st_ctime
    assert scan(str(tmp_path), FEEDS, written + 1.9, settle_seconds=2) == []
    assert keys(scan(str(tmp_path), FEEDS, written + 2.1, settle_seconds=2)) == ["events/2026-01-05"]


def test_an_odd_name_is_a_delivery_too_with_an_id_that_airflow_takes(tmp_path: Path) -> None:
    land(tmp_path, "events/märz 5.parquet")
    (odd,) = scan(str(tmp_path), FEEDS, later())
    assert odd.partition == "märz 5"
    assert odd.run_id(1) == f"events_m-rz-5_1_{odd.fingerprint}"


def test_what_has_been_announced_is_not_new_until_it_changes(tmp_path: Path) -> None:
    path = land(tmp_path, "events/2026-01-05.parquet")
    land(tmp_path, "events/2026-01-06.parquet")
    announced = Announced()
    first, second = scan(str(tmp_path), FEEDS, later())
    announced.add(first)
    assert announced.new(scan(str(tmp_path), FEEDS, later())) == [second]

    path.write_text("corrected")
    announced = Announced(announced.stored())
    (corrected, _) = announced.new(scan(str(tmp_path), FEEDS, later()))
    assert corrected.key == first.key
    assert announced.number(corrected) == 2
    assert corrected.run_id(2) != first.run_id(2)


def test_a_return_to_an_earlier_file_is_a_delivery_of_its_own() -> None:
    original, correction = (
        Delivery("events", "2026-01-05", "aaaa", "2026-01-05.parquet"),
        Delivery("events", "2026-01-05", "bbbb", "2026-01-05.parquet"),
    )
    announced, ids = Announced(), []
    for delivery in (original, correction, original):
        assert announced.new([delivery])
        ids.append(delivery.run_id(announced.number(delivery)))
        announced.add(delivery)
    assert ids == ["events_2026-01-05_1_aaaa", "events_2026-01-05_2_bbbb", "events_2026-01-05_3_aaaa"]


def test_a_file_from_before_the_clock_was_set_back_is_not_awaited_for_an_hour(tmp_path: Path) -> None:
    land(tmp_path, "events/2026-01-05.parquet")
    assert keys(scan(str(tmp_path), FEEDS, later(-3600))) == ["events/2026-01-05"]
    # Another machine's clock may be ahead by seconds, and its writer at work.
    assert scan(str(tmp_path), FEEDS, later(-5)) == []
