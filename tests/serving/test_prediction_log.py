"""Answered predictions reach the lake exactly once: through restarts, a lake that is away, and kill -9."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from serving import prediction_log
from serving.metrics import Metrics
from serving.prediction_log import WORST_LOSS_SECONDS, PredictionLog
from serving.segments import EventLayout, line
from serving.spool import Line, Spool
from testing.waiting import eventually
from tests.cases import others_in_ci
from tests.serving.prediction_rows import (
    NOW,
    flat_row,
    flat_table,
    make_log,
    older_line,
    row,
    shipped,
    stored,
    stored_from_flat,
    together,
)
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.errors import ConfigError, TransientError
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.predictions import event_type, prediction_schema


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "card_payments", "card_fraud")


def read(lake: Lake) -> list[dict[str, Any]]:
    rows = lake.scan(PREDICTIONS).to_table().to_pylist()
    return sorted(rows, key=lambda row: str(row["prediction_id"]))


def changed(spec: ModelSpec, **columns: dict[str, Any] | None) -> ModelSpec:
    """`spec` with these event columns; None takes one away."""
    raw = spec.model_dump(mode="json")
    held = raw["source"]["feeds"]["events"]["columns"]
    raw["source"]["feeds"]["events"]["columns"] = {k: v for k, v in (held | columns).items() if v is not None}
    return ModelSpec.model_validate(raw)


def logged(folder: Path, lake: Lake, spec: ModelSpec, *rows: dict[str, Any]) -> None:
    log = make_log(folder, lake, spec)
    log.append(together(*rows))
    log.close()
    assert not list((folder / "spool").glob("*.jsonl")), "the log waits"


def with_event(number: int, **event: Any) -> dict[str, Any]:
    made = row(number)
    return made | {"event": made["event"] | event}


def test_rows_arrive_with_their_types_and_leave_the_spool(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    logged(tmp_path, lake, spec, row(1), row(2))
    table = lake.scan(PREDICTIONS).to_table()
    expected = prediction_schema(event_type(spec))
    # A Delta table has its partition columns last.
    assert table.select(expected.names).schema.equals(expected)
    for found, wanted in zip(read(lake), [stored(1), stored(2)], strict=True):
        assert found == wanted


@pytest.mark.parametrize(
    "name",
    others_in_ci(
        ["score", "event", "Score", "features", "day", "slot", "role", "replica", "model_version", "outputs"], first=3
    ),
)
def test_an_event_column_may_be_called_like_one_of_the_logs(
    tmp_path: Path, lake: Lake, spec: ModelSpec, name: str
) -> None:
    logged(tmp_path, lake, changed(spec, **{name: {"type": "float64"}}), with_event(1, **{name: 612.0}))
    [found] = read(lake)
    assert found["event"][name] == 612.0
    assert {**found, "event": None} == {**stored(1), "event": None}


def test_lines_of_several_versions_and_rows_are_shipped(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    other = {"feature_names": '["c"]', "feature_values": [float("nan")], "model_version": 4, "role": "shadow"}
    classes = {"output_names": '["p", "q"]', "output_values": [0.5, 0.125]}
    spool = Spool(tmp_path / "spool")
    spool.write([line(together(row(1), row(2))), line(together(row(3) | other | classes, row(4) | other | classes))])
    spool.write([line(together(*(row(number) for number in range(5, 4_000))))])  # A line of 1 MB.
    spool.close()
    logged(tmp_path, lake, spec, row(4_000))
    rows = read(lake)
    found = {each["prediction_id"]: each for each in rows}
    assert len(found) == len(rows) == 4_000
    assert all(found[f"p{number}"] == stored(number) for number in (1, 2, *range(5, 4_001)))
    for number in (3, 4):
        shadow = {
            "model_version": 4,
            "role": "shadow",
            "outputs": [("p", 0.5), ("q", 0.125)],
            "features": [("c", None)],
        }
        assert found[f"p{number}"] == stored(number) | shadow


def test_segments_with_a_line_for_each_row_are_shipped(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write([older_line(row(1)), older_line(row(2)), line(together(row(3), row(4)))])
    spool.close()
    logged(tmp_path, lake, spec, row(5))
    assert read(lake) == [stored(number) for number in range(1, 6)]


def test_segments_in_the_layout_before_are_shipped(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    older = {k: v for k, v in flat_row(3).items() if k not in ("feature_names", "feature_values", "slot")}
    older |= {"features": '{"a": 3.5}', "flagged": True, "score": 0.75}
    spool = Spool(tmp_path / "spool")
    spool.write([older_line(flat_row(1)), Line(b"[]\n", 1), older_line(older)])
    spool.close()
    logged(tmp_path, lake, spec, row(2))
    one, two, three = read(lake)
    assert (one, two) == (stored_from_flat(1), stored(2))
    assert (three["role"], three["decision"], three["outputs"]) == ("champion", "alert", [("score", 0.75)])
    assert three["features"] == [("a", 3.5)]


def test_a_table_in_the_layout_before_is_converted_in_one_commit(
    tmp_path: Path, lake: Lake, spec: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    old = flat_table(1, 2)
    old = old.set_column(old.column_names.index("slot"), "slot", pa.array([None, "shadow"]))
    old = old.set_column(old.column_names.index("flagged"), "flagged", pa.array([True, False]))
    lake.append_once(PREDICTIONS, old, ["day"], "predictions-another", 7)
    before = lake.version(PREDICTIONS)
    logged(tmp_path, lake, spec, row(3))
    one, two, three = read(lake)
    assert one == stored_from_flat(1) | {"decision": "alert"}
    assert two == stored_from_flat(2) | {"role": "shadow"}
    assert three == stored(3)
    assert lake.version(PREDICTIONS) == before + 2  # converted, then appended
    assert lake.applied(PREDICTIONS, "predictions-another") == 7
    assert "Converted the 2 rows" in caplog.text
    with pytest.raises(
        Exception, match="column features is map<string, float> in the table"
    ):  # a replica of before keeps its rows until it is replaced
        lake.append_once(PREDICTIONS, old, ["day"], "predictions-another", 8)


def test_a_conversion_never_loses_what_another_replica_appends_meanwhile(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.append_once(PREDICTIONS, flat_table(1), ["day"], "predictions-another", 1)
    overwrite, raced = Lake.overwrite, []

    def race(self: Lake, *args: Any, **options: Any) -> int:
        if not raced:
            raced.append(lake.append_once(PREDICTIONS, flat_table(2), ["day"], "predictions-another", 2))
        return overwrite(self, *args, **options)

    monkeypatch.setattr(Lake, "overwrite", race)
    monkeypatch.setattr(prediction_log, "RETRY_SECONDS", (0.05, 0.1))
    log = make_log(tmp_path, lake, spec)
    log.append(together(row(3)))
    eventually(lambda: lake.scan(PREDICTIONS).count_rows() == 3)
    log.close()
    assert shipped(lake) == [1, 2, 3]


def test_event_columns_come_and_go(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    old, channel = {"type": "float64"}, {"type": "string"}
    logged(tmp_path, lake, changed(spec, old=old), with_event(1, old=2.5))
    logged(tmp_path, lake, changed(spec, old=old, channel=channel), with_event(2, old=2.5, channel="web"))
    logged(tmp_path, lake, spec, row(3))
    assert [(r["event"]["channel"], r["event"]["old"]) for r in read(lake)] == [(None, 2.5), ("web", 2.5), (None, None)]


@pytest.mark.parametrize(
    ("first", "then", "stored_values"),
    others_in_ci(
        [
            (("int64", 30), ("float64", 30.57), [30.0, 30.57]),  # the table is widened
            (("float64", 30.0), ("int64", 31), [30.0, 31.0]),  # the rows fit the table
            (("int64", 7), ("string", "a7"), ["7", "a7"]),
            (("string", "7"), ("int64", 8), ["7", "8"]),
            (("bool", True), ("int64", 2), [1, 2]),
        ],
        first=3,
    ),
)
def test_a_changed_type_is_followed_where_no_value_is_lost(
    tmp_path: Path, lake: Lake, spec: ModelSpec, first: Any, then: Any, stored_values: list[Any]
) -> None:
    for number, (kind, value) in enumerate((first, then)):
        logged(tmp_path, lake, changed(spec, x={"type": kind}), with_event(number, x=value))
    assert [r["event"]["x"] for r in read(lake)] == stored_values


def test_values_that_do_not_fit_a_changed_type_are_kept_beside(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    text, number = changed(spec, x={"type": "timestamp"}), changed(spec, x={"type": "bool"})
    logged(tmp_path, lake, text, with_event(1, x=NOW))
    logged(tmp_path, lake, number, with_event(2, x=True))
    logged(tmp_path, lake, text, with_event(3, x=NOW))
    logged(tmp_path, lake, number, with_event(4, x=False))
    found = [(r["event"]["x"], r["event"]["_x_timestamp"], r["event"]["_x_bool"]) for r in read(lake)]
    assert found == [(None, NOW, None), (True, None, True), (None, NOW, None), (False, None, None)]


def test_names_that_differ_in_capitals_only_follow_one_another(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    logged(tmp_path, lake, changed(spec, Channel={"type": "string"}), with_event(1, Channel="web"))
    logged(tmp_path, lake, changed(spec, channel={"type": "string"}), with_event(2, channel="shop"))
    assert [(r["event"]["channel"], r["event"]["_Channel_string"]) for r in read(lake)] == [
        (None, "web"),
        ("shop", None),
    ]


def test_lines_that_wait_while_the_spec_changes_are_shipped_whole(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    spool = Spool(tmp_path / "spool")
    for name in ("x1", "2026-01-05T12:30:00.000005+00:00", 5, None):
        spool.write([line(together(with_event(1, x=name)))])
    spool.close()
    logged(tmp_path, lake, changed(spec, x={"type": "timestamp"}), with_event(2, x=NOW))
    found = {(r["event"]["x"], r["event"]["_x_string"]) for r in read(lake)}
    assert found == {(None, "x1"), (NOW, None), (None, "5"), (None, None)}


def test_lines_that_wait_while_the_spec_loses_a_column_keep_its_values(
    tmp_path: Path, lake: Lake, spec: ModelSpec
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write([line(together(with_event(1, gone=2.5), with_event(2, gone=None)))])
    spool.close()
    logged(tmp_path, lake, spec, row(3))
    assert [r["event"]["_gone_string"] for r in read(lake)] == ["2.5", None, None]


@pytest.mark.parametrize(
    "broken",
    others_in_ci(
        [
            {"prediction_id": 5},
            {"predicted_at": "yesterday"},
            {"feature_names": "[a"},
            {"feature_values": [1.0]},
            {"model_version": "x"},
            {"features_defaulted": "yes"},
            {"feature_names": "5"},
        ],
        first=4,
    ),
    ids=str,
)
def test_a_broken_line_is_left_out_and_said(
    tmp_path: Path, lake: Lake, spec: ModelSpec, caplog: pytest.LogCaptureFixture, broken: dict[str, Any]
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write([line(together(row(1))), line(together(row(2) | broken)), line(together(row(3)))])
    spool.close()
    logged(tmp_path, lake, spec, row(4))
    assert shipped(lake) == [1, 3, 4]
    assert "A row of" in caplog.text


@pytest.mark.parametrize(
    "content", others_in_ci([b"{}\n[]\n5\n", b"{x\n", b"\0" * 50 + b"\n", b'{"prediction_id": ["p1"]}\n'], first=2)
)
def test_a_segment_without_any_prediction_holds_up_no_other(
    tmp_path: Path, lake: Lake, spec: ModelSpec, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write([Line(content, 1)])
    spool.seal()
    spool.write([line(together(row(1)))])
    spool.close()
    logged(tmp_path, lake, spec, row(2))
    assert shipped(lake) == [1, 2]
    assert not [*(tmp_path / "spool").glob("*.jsonl*")]
    assert "cannot be read; it is left out" in caplog.text


@pytest.mark.parametrize("length", others_in_ci([1, 3]))
@pytest.mark.parametrize("field", ["amount", "decision", "feature_values"])
def test_a_line_with_too_few_or_too_many_values_of_a_field_is_left_out(
    tmp_path: Path, lake: Lake, spec: ModelSpec, caplog: pytest.LogCaptureFixture, field: str, length: int
) -> None:
    """Whose value is missing cannot be known."""
    broken = orjson.loads(line(together(row(1), row(2))).content)
    holder = broken["event"] if field == "amount" else broken
    holder[field] = (holder[field] * 2)[:length]
    spool = Spool(tmp_path / "spool")
    spool.write([Line(orjson.dumps(broken) + b"\n", 2), line(together(row(3)))])
    spool.close()
    logged(tmp_path, lake, spec, row(4))
    assert shipped(lake) == [3, 4]
    assert "left out" in caplog.text


@pytest.mark.parametrize(
    "broken", others_in_ci([{"prediction_id": 5}, {"predicted_at": "yesterday"}, {"decision": 1}]), ids=str
)
def test_the_other_rows_of_the_line_of_a_broken_row_are_shipped(
    tmp_path: Path, lake: Lake, spec: ModelSpec, caplog: pytest.LogCaptureFixture, broken: dict[str, Any]
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write([line(together(row(1), row(2) | broken, row(3)))])
    spool.close()
    logged(tmp_path, lake, spec, row(4))
    assert shipped(lake) == [1, 3, 4]
    assert "A row of" in caplog.text


def test_shipping_does_not_wait_for_the_end(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "SEGMENT_SECONDS", 0.2)
    log = make_log(tmp_path, lake, spec)
    log.append(together(row(1)))
    assert eventually(lambda: shipped(lake)) == [1]
    log.close()


def test_predictions_wait_for_their_time_or_for_enough_of_them(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "SEGMENT_ROWS", 3)
    metrics = Metrics(CollectorRegistry()).of(spec.name)
    log = PredictionLog(tmp_path / "spool", lake, EventLayout.of(spec), "r", metrics, ship_seconds=3600)
    log.start()
    log.append(together(row(1), row(2)))
    assert log.unshipped
    eventually(lambda: log.waiting == 0)
    time.sleep(0.5)
    assert lake.version(PREDICTIONS) is None
    assert log.unshipped
    log.append(together(row(3)))
    eventually(lambda: shipped(lake) == [1, 2, 3])
    eventually(lambda: not log.unshipped)
    log.append(together(row(4)))
    log.close()
    assert not log.unshipped
    assert shipped(lake) == [1, 2, 3, 4]


def test_a_restart_goes_on_with_new_numbers(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    for number in range(4):
        log = make_log(tmp_path, lake, spec)
        log.append(together(row(number)))
        log.close()
    assert shipped(lake) == [0, 1, 2, 3]


def test_killed_between_commit_and_deletion_nothing_doubles(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "delete", lambda self, path: (_ for _ in ()).throw(OSError("killed here")))
        log = make_log(tmp_path, lake, spec)
        log.append(together(row(1)))
        log.close()
    assert shipped(lake) == [1]
    assert list((tmp_path / "spool").glob("*.jsonl"))
    log = make_log(tmp_path, lake, spec)
    log.append(together(row(2)))
    log.close()
    assert shipped(lake) == [1, 2]
    assert not list((tmp_path / "spool").glob("*.jsonl"))


def test_while_the_lake_is_away_the_spool_keeps(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "applied", lambda *_: (_ for _ in ()).throw(TransientError("the lake is away")))
        for number in (1, 2, 3):
            log = make_log(tmp_path, lake, spec)
            log.append(together(row(number)))
            log.close()
    assert "the lake is away" in caplog.text
    make_log(tmp_path, lake, spec).close()
    assert shipped(lake) == [1, 2, 3]
    assert lake.version(PREDICTIONS) == 1  # made, then one commit for what gathered meanwhile


def test_a_full_spool_drops_and_counts(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prediction_log, "MAXIMUM_QUEUE", 2)
    registry = CollectorRegistry()
    log = PredictionLog(tmp_path / "spool", lake, EventLayout.of(spec), "r", Metrics(registry).of(spec.name))
    log.append(together(row(1), row(2), row(3)))
    assert registry.get_sample_value("perennial_prediction_log_dropped_total", {"model": spec.name}) == 3
    assert "not logged" in caplog.text
    log.append(together(row(4)))
    log.start()
    log.close()
    assert shipped(lake) == [4]


def test_a_torn_line_is_cut_and_the_rest_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write([Line(content, 1) for content in (b'{"a": 1}\n', b'{"a": 2}\n', b'{"a": ')])
    spool = Spool(tmp_path)  # the process before was killed in the middle of a write
    [(number, path)] = spool.sealed()
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n'
    assert spool.number > number


def test_numbers_grow_though_everything_was_shipped(tmp_path: Path) -> None:
    numbers = []
    for _ in range(3):
        spool = Spool(tmp_path)
        spool.write([Line(b"{}\n", 1)])
        spool.close()
        for number, path in spool.sealed():
            numbers.append(number)
            spool.delete(path)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 3


def _log_until_killed(folder: str, first: str) -> None:
    """Logs rows one after another, each noted in a file before it is handed over."""
    lake, spec = Lake(f"{folder}/lake", "card_payments", "card_fraud"), load_model_spec("card_fraud")
    log = make_log(Path(folder), lake, spec)
    with open(f"{folder}/handed", "a", buffering=1) as handed:
        for number in range(int(first), int(first) + 1_000_000):
            log.append(together(row(number)))
            handed.write(f"{number} {time.time()}\n")
            time.sleep(0.001)


@pytest.mark.long
def test_kill_9_loses_a_moment_at_most_and_doubles_nothing(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    kills, late = [], []
    for generation, seconds in enumerate((2.6, 2.15, 2.4, 2.05)):
        command = [sys.executable, __file__, str(tmp_path), str(generation * 1_000_000)]
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        handed = tmp_path / "handed"
        deadline = time.monotonic() + 30
        before = handed.stat().st_size if handed.exists() else 0
        while not handed.exists() or handed.stat().st_size == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(seconds)  # about when a segment is sealed and shipped
        process.send_signal(signal.SIGKILL)
        kills.append(time.time())
        process.wait()
    make_log(tmp_path, lake, spec).close(60)
    found = shipped(lake)
    assert len(found) == len(set(found))
    lines = [line.split() for line in (tmp_path / "handed").read_text().splitlines()]
    present = set(found)
    for number, at in lines:
        if int(number) not in present:
            late.append(kills[int(number) // 1_000_000] - float(at))
    assert len(found) > 1000
    assert max(late, default=0) < WORST_LOSS_SECONDS


def test_two_processes_cannot_have_one_replica(tmp_path: Path) -> None:
    from serving.replica import hold, replica_name

    descriptor = hold(tmp_path)
    with pytest.raises(ConfigError, match="Another prediction service"):
        hold(tmp_path, patience=0.2)
    os.close(descriptor)
    os.close(hold(tmp_path, patience=0.2))
    assert replica_name(tmp_path) == replica_name(tmp_path)


if __name__ == "__main__":
    _log_until_killed(*sys.argv[1:])
