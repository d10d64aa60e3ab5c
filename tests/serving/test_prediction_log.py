"""Answered predictions reach the lake exactly once: through restarts, a lake that is away, and kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving import prediction_log
from serving.metrics import Metrics
from serving.prediction_log import WORST_LOSS_SECONDS, PredictionLog
from serving.segments import FEATURE_NAMES, FEATURE_VALUES, prediction_schema
from serving.spool import Spool
from tests.serving.rows import make_log, row, shipped, stored
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.errors import ConfigError, TransientError
from training.contract.model_spec import ModelSpec, load_model_spec


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "card_fraud")


def test_rows_arrive_with_their_types_and_leave_the_spool(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    log = make_log(tmp_path, lake, spec)
    log.append([row(1), row(2)])
    log.close()
    table = lake.scan(PREDICTIONS).to_table()
    assert table.schema.equals(prediction_schema(spec))
    rows = sorted(table.to_pylist(), key=lambda r: r["transaction_id"])
    for each in rows:
        features = json.loads(each["features"])
        each["features"] = {name: float(np.float32(value)) for name, value in features.items()}
    assert rows == [stored(1), stored(2)]
    assert not list((tmp_path / "spool").glob("*.jsonl"))


def test_lines_of_an_older_version_go_to_the_lake_as_they_are(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    old = {name: value for name, value in row(1).items() if name not in (FEATURE_NAMES, FEATURE_VALUES)}
    log = make_log(tmp_path, lake, spec)
    log.append([old | {"features": '{"a": 1}'}, row(2)])
    log.close()
    found = lake.scan(PREDICTIONS).to_table().sort_by("transaction_id")["features"].to_pylist()
    assert (found[0], found[1].startswith('{"a":2.1,')) == ('{"a": 1}', True)


def test_shipping_does_not_wait_for_the_end(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "SEGMENT_SECONDS", 0.2)
    log = make_log(tmp_path, lake, spec)
    log.append([row(1)])
    deadline = time.monotonic() + 10
    while not shipped(lake) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shipped(lake) == [1]
    log.close()


def test_a_restart_goes_on_with_new_numbers(tmp_path: Path, lake: Lake, spec: ModelSpec) -> None:
    for number in range(4):
        log = make_log(tmp_path, lake, spec)
        log.append([row(number)])
        log.close()
    assert shipped(lake) == [0, 1, 2, 3]


def test_killed_between_commit_and_deletion_nothing_doubles(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "delete", lambda self, path: (_ for _ in ()).throw(OSError("killed here")))
        log = make_log(tmp_path, lake, spec)
        log.append([row(1)])
        log.close()
    assert shipped(lake) == [1]
    assert list((tmp_path / "spool").glob("*.jsonl"))
    log = make_log(tmp_path, lake, spec)
    log.append([row(2)])
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
            log.append([row(number)])
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
    log = PredictionLog(tmp_path / "spool", lake, spec, "r", Metrics(registry))
    log.append([row(1), row(2), row(3)])
    assert registry.get_sample_value("perennial_prediction_log_dropped_total") == 3
    assert "not logged" in caplog.text
    log.append([row(4)])
    log.start()
    log.close()
    assert shipped(lake) == [4]


def test_a_torn_line_is_cut_and_the_rest_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write([b'{"a": 1}\n', b'{"a": 2}\n', b'{"a": '])
    spool = Spool(tmp_path)  # the process before was killed in the middle of a write
    [(number, path)] = spool.sealed()
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n'
    assert spool.number > number


def test_numbers_grow_though_everything_was_shipped(tmp_path: Path) -> None:
    numbers = []
    for _ in range(3):
        spool = Spool(tmp_path)
        spool.write([b"{}\n"])
        spool.close()
        for number, path in spool.sealed():
            numbers.append(number)
            spool.delete(path)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 3


def _log_until_killed(folder: str, first: str) -> None:
    """Logs rows one after another, each noted in a file before it is handed over."""
    lake, spec = Lake(f"{folder}/lake", "card_fraud"), load_model_spec("card_fraud")
    log = make_log(Path(folder), lake, spec)
    with open(f"{folder}/handed", "a", buffering=1) as handed:
        for number in range(int(first), int(first) + 1_000_000):
            log.append([row(number)])
            handed.write(f"{number} {time.time()}\n")
            time.sleep(0.001)


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
