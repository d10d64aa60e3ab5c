"""A file of weeks of rows as partitions of a source."""

from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from local.land import land, main
from training.contract.errors import ExitCode, InputError
from training.contract.source_spec import SourceSpec, load_source_spec
from training.onboarding.sample import Sample, read_sample

FIRST = date(2025, 3, 1)
SPEC = """
name: visits
title: Visits
owner: test
feeds:
  events:
    time_column: at
    id_column: id
    columns: {id: {type: int64, unique: true}, at: {type: timestamp}, pages: {type: int64}}
  labels:
    time_column: known_at
    id_column: id
    columns: {id: {type: int64, unique: true}, known_at: {type: timestamp}, bought: {type: bool}}
labels:
  bought: {feed: labels, delay_days: 1}
"""


@pytest.fixture
def spec(tmp_path: Path) -> SourceSpec:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "visits.yaml").write_text(SPEC)
    return load_source_spec("visits", tmp_path / "repo")


@pytest.fixture
def samples(tmp_path: Path) -> dict[str, Sample]:
    """Two visits on each of ten days, the newest first, and their labels a day later. The fourth day has none."""
    days = [day for day in range(10) if day != 3 for _ in range(2)][::-1]
    times = [datetime(2025, 3, 1 + day, 12) for day in days]
    ids = list(range(len(days)))
    events = pa.table({"id": ids, "AT": times, "pages": ids, "other": ids})
    labels = pa.table({"id": ids, "known_at": [at + timedelta(days=1) for at in times], "bought": [True] * len(ids)})
    for name, table in (("events", events), ("labels", labels)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    return {name: read_sample(tmp_path / f"{name}.parquet") for name in ("events", "labels")}


def names(paths: list[Path]) -> list[str]:
    return [f"{path.parent.name}/{path.stem}" for path in paths]


def test_history_shares_files_and_the_newest_days_have_one_each(
    tmp_path: Path, spec: SourceSpec, samples: dict[str, Sample]
) -> None:
    paths = list(land(tmp_path / "landing", spec, samples, days_per_file=5, single_days=2))
    assert names(paths) == [
        "events/2025-03-01_2025-03-05",
        "events/2025-03-06_2025-03-08",
        "events/2025-03-09",
        "events/2025-03-10",
        "labels/2025-03-02_2025-03-06",
        "labels/2025-03-07_2025-03-09",
        "labels/2025-03-10",
        "labels/2025-03-11",
    ]
    rows = pq.read_table(paths[0])
    assert rows.column_names == ["id", "at", "pages"]
    assert rows["at"].to_pylist() == sorted(rows["at"].to_pylist())
    landed = [each for path in paths[:4] for each in pq.read_table(path)["id"].to_pylist()]
    assert sorted(landed) == list(range(18))


def test_a_day_without_rows_has_no_file(tmp_path: Path, spec: SourceSpec, samples: dict[str, Sample]) -> None:
    paths = list(land(tmp_path / "landing", spec, samples, days_per_file=1))
    assert "events/2025-03-04" not in names(paths)
    assert len(paths) == 18


def test_only_the_days_that_are_wanted_are_landed(tmp_path: Path, spec: SourceSpec, samples: dict[str, Sample]) -> None:
    paths = list(land(tmp_path / "landing", spec, samples, FIRST + timedelta(days=8), FIRST + timedelta(days=8)))
    assert names(paths) == ["events/2025-03-09", "labels/2025-03-09"]
    with pytest.raises(InputError, match="has rows of 2025-03-01 … 2025-03-10 only"):
        list(land(tmp_path / "landing", spec, samples, date(2026, 1, 1)))


def test_labels_of_the_events_of_an_omitted_day_are_omitted(
    tmp_path: Path, spec: SourceSpec, caplog: pytest.LogCaptureFixture
) -> None:
    """The file begins at 20:00 of the first day and ends at 2:00 of the last. Labels have ids of another width."""
    start, end = datetime(2025, 3, 1, 20), datetime(2025, 3, 10, 2)
    times = [start + timedelta(hours=hour) for hour in range(int((end - start) / timedelta(hours=1)))]
    ids = list(range(len(times)))
    events = pa.table({"id": ids, "at": times, "pages": ids})
    # Those of the first day are known on the third and fifth day, as labels of other days are.
    known = [at + timedelta(days=4 if at.hour % 2 else 2) for at in times]
    labels = pa.table({"id": pa.array(ids, pa.int32()), "known_at": known, "bought": [True] * len(ids)})
    for name, table in (("events", events), ("labels", labels)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    samples = {name: read_sample(tmp_path / f"{name}.parquet") for name in ("events", "labels")}
    paths = list(land(tmp_path / "landing", spec, samples))
    whole = {each for each, at in zip(ids, times, strict=True) if date(2025, 3, 1) < at.date() < date(2025, 3, 10)}
    landed = {feed: [pq.read_table(path)["id"] for path in paths if path.parent.name == feed] for feed in samples}
    assert {each for column in landed["events"] for each in column.to_pylist()} == whole
    assert {each for column in landed["labels"] for each in column.to_pylist()} == whole
    assert "Omitted 2025-03-01 and 2025-03-10" in caplog.text
    assert f"Omitted {len(ids) - len(whole)} rows" in caplog.text


def test_a_missing_column_is_named(tmp_path: Path, spec: SourceSpec, samples: dict[str, Sample]) -> None:
    with pytest.raises(InputError, match="no column at, pages"):
        list(land(tmp_path / "landing", spec, {"events": samples["labels"]}))
    assert not (tmp_path / "landing").exists()


def test_the_command_lands_both_feeds(
    tmp_path: Path, spec: SourceSpec, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_FEATURE_REPO", str(tmp_path / "repo"))
    command = ["--source", "visits", "--landing", str(tmp_path / "landing")]
    files = [f"--{name}={samples[feed].path}" for name, feed in (("data", "events"), ("labels", "labels"))]
    assert main([*command, *files]) == ExitCode.OK
    assert len(list((tmp_path / "landing" / "visits").glob("*/*.parquet"))) == 8
    assert main(command) == ExitCode.BAD_INPUT
    assert main([*command, *files, "--labels-feed", "events"]) == ExitCode.BAD_INPUT
    assert main([*command, "--data", str(tmp_path / "none.parquet")]) == ExitCode.BAD_INPUT
