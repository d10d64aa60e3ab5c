"""A disk that refuses costs no prediction and doubles none, and the log says what is the matter."""

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving import prediction_log
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.segments import EventLayout
from serving.spool import Line, Spool
from testing.waiting import eventually
from tests.cases import others_in_ci
from tests.serving.prediction_rows import make_log, row, shipped, together
from training.adapters.lake import Lake
from training.contract.errors import TransientError
from training.contract.model_spec import ModelSpec


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "card_payments", "card_fraud")


def refuse(patch: pytest.MonkeyPatch, owner: Any, name: str, times: int) -> None:
    """Let the writer's next `times` calls of `owner.name` fail."""
    real, left = getattr(owner, name), iter(range(times))

    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread().name == "prediction-writer" and next(left, None) is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    patch.setattr(owner, name, call)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SEGMENT_SECONDS": 0.1, "DISK_RETRY_SECONDS": 0.05, "PATIENCE_SECONDS": 0.4}.items():
        monkeypatch.setattr(prediction_log, name, value)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("owner", "name"), others_in_ci([(Path, "open"), (Path, "rename"), (os, "open"), (os, "fsync"), (os, "scandir")], 3)
)
@pytest.mark.parametrize("times", others_in_ci([3, 1]))
def test_a_disk_that_refuses_and_recovers_costs_no_row_and_doubles_none(
    tmp_path: Path,
    lake: Lake,
    spec: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    name: str,
    times: int,
) -> None:
    log = make_log(tmp_path, lake, spec)
    refuse(monkeypatch, owner, name, times)
    log.append(together(row(1), row(2)))
    eventually(lambda: "is written again" in caplog.text)
    log.append(together(row(3)))
    eventually(lambda: shipped(lake) == [1, 2, 3])
    assert log.problem() is None
    log.close()
    assert shipped(lake) == [1, 2, 3]
    assert caplog.text.count("No space left on device") == 1


def test_rows_whose_sync_fails_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    spool.write([Line(b"1\n", 1)])
    spool.sync()
    spool.write([Line(b"2\n", 1)])
    spool.write([Line(b"3\n", 1)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            spool.sync()
    assert spool.take_back() == [Line(b"2\n", 1), Line(b"3\n", 1)]
    assert (spool.rows, spool.unsynced) == (1, False)
    spool.write([Line(b"2\n", 1), Line(b"3\n", 1)])
    spool.close()
    [(_, path)] = spool.sealed()
    assert path.read_bytes() == b"1\n2\n3\n"


def test_the_open_segment_grows_while_another_waits_for_the_lake(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "SEGMENT_SECONDS", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "applied", lambda *_: (_ for _ in ()).throw(TransientError("the lake is away")))
        log = make_log(tmp_path, lake, spec)
        for number in range(10):
            log.append(together(row(number)))
            eventually(lambda: not log.busy)
            time.sleep(0.06)
        assert len(list((tmp_path / "spool").glob("*.jsonl"))) <= 2
    log.close()
    assert shipped(lake) == list(range(10))


@pytest.mark.usefixtures("quick")
def test_while_the_next_segment_cannot_be_opened_the_open_one_is_written(
    tmp_path: Path, lake: Lake, spec: ModelSpec
) -> None:
    log = make_log(tmp_path, lake, spec)
    in_the_way = tmp_path / "spool" / f"{2:012d}.open"
    in_the_way.mkdir()
    log.append(together(row(1)))
    problem = eventually(log.problem)
    assert "could not be written" in problem
    assert "Is a directory" in problem
    log.append(together(row(2)))
    eventually(lambda: len((tmp_path / "spool" / f"{1:012d}.open").read_bytes().splitlines()) == 2)
    in_the_way.rmdir()
    eventually(lambda: log.problem() is None)
    eventually(lambda: shipped(lake) == [1, 2])
    log.close()


@pytest.mark.usefixtures("quick")
def test_what_the_disk_refuses_to_the_end_is_counted(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    log = PredictionLog(tmp_path / "spool", lake, EventLayout.of(spec), "r", Metrics(registry).of(spec.name))
    refuse(monkeypatch, os, "fsync", 1_000_000)
    log.start()
    log.append(together(row(1), row(2)))
    log.close()
    assert registry.get_sample_value("perennial_prediction_log_dropped_total", {"model": spec.name}) == 2
    assert "without 2 predictions" in caplog.text


@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_writer_is_a_problem(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make_log(tmp_path, lake, spec)
    assert log.problem() is None
    monkeypatch.setattr(Spool, "write", lambda *_: (_ for _ in ()).throw(RuntimeError("a defect")))
    log.append(together(row(1)))
    eventually(lambda: "prediction-writer" in (log.problem() or ""))
    log.close()


@pytest.mark.usefixtures("quick")
def test_a_spool_that_was_full_takes_rows_when_the_lake_is_back(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "MAXIMUM_SPOOL_BYTES", 100)
    monkeypatch.setattr(prediction_log, "RETRY_SECONDS", (0.1, 0.1))
    registry = CollectorRegistry()
    log = PredictionLog(tmp_path / "spool", lake, EventLayout.of(spec), "r", Metrics(registry).of(spec.name))

    def after_dropping(more: dict[str, Any]) -> bool:
        before = registry.get_sample_value("perennial_prediction_log_dropped_total", {"model": spec.name})
        log.append(together(more))
        return registry.get_sample_value("perennial_prediction_log_dropped_total", {"model": spec.name}) != before

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "applied", lambda *_: (_ for _ in ()).throw(TransientError("the lake is away")))
        log.start()
        log.append(together(row(1)))
        eventually(lambda: after_dropping(row(2)))
    eventually(lambda: not after_dropping(row(3)))
    log.close()
    assert {1, 3} <= set(shipped(lake))
