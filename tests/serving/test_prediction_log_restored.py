"""The prediction log when its folder, the lake's table or both were restored from older copies: nothing is lost
silently, and nothing is doubled."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving import shipping
from serving.spool import Spool
from testing.waiting import eventually
from tests.serving.prediction_rows import make_log, row, shipped, together
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.errors import TransientError
from training.contract.model_spec import ModelSpec

TABLE_OLDER = "it was restored from an older copy, or deleted"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "card_payments", "card_fraud")


class Replica:
    """A service's folder `spool` and the lake beside it, in states that can be kept and restored."""

    def __init__(self, folder: Path, lake: Lake, spec: ModelSpec) -> None:
        self.folder, self.lake, self.spec = folder, lake, spec

    def logs(self, *numbers: int, **how: Any) -> None:
        """One life of the service for each number, so that each number is a segment and a commit."""
        for number in numbers:
            log = make_log(self.folder, self.lake, self.spec, **how)
            log.append(together(row(number)))
            log.close()

    def starts(self, **how: Any) -> None:
        log = make_log(self.folder, self.lake, self.spec, **how)
        eventually(lambda: log._ship_at is None)
        log.close()

    def keep(self, part: str) -> None:
        shutil.copytree(self.folder / part, self.folder / f"kept-{part}")

    def restore(self, part: str) -> None:
        shutil.rmtree(self.folder / part)
        shutil.copytree(self.folder / f"kept-{part}", self.folder / part)


@pytest.fixture
def replica(tmp_path: Path, lake: Lake, spec: ModelSpec) -> Replica:
    return Replica(tmp_path, lake, spec)


def test_an_older_folder_ships_new_predictions_under_numbers_that_are_free(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serving.prediction_log.SEGMENT_SECONDS", 0.05)
    replica.logs(1, 2)
    replica.keep("spool")
    replica.logs(3, 4, 5)
    replica.restore("spool")
    log = make_log(replica.folder, replica.lake, replica.spec)
    for number in (6, 7, 8):
        log.append(together(row(number)))
        eventually(lambda number=number: number in shipped(replica.lake))
    log.close()
    assert shipped(replica.lake) == [1, 2, 3, 4, 5, 6, 7, 8]
    # Only the segment that was open before the table was looked at has a number that is taken.
    assert caplog.text.count("1 of its 1 predictions are not there") == 1
    assert TABLE_OLDER not in caplog.text


def test_an_emptied_folder_of_a_replica_with_the_same_name_loses_nothing_new(replica: Replica) -> None:
    replica.logs(1, 2, 3)
    shutil.rmtree(replica.folder / "spool")
    replica.logs(4, 5)
    assert shipped(replica.lake) == [1, 2, 3, 4, 5]


def test_segments_that_were_shipped_after_the_copy_are_not_doubled(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.logs(1)
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "applied", lambda *_: (_ for _ in ()).throw(TransientError("the lake is away")))
        replica.logs(2, 3)
    replica.keep("spool")
    replica.logs(4)
    assert shipped(replica.lake) == [1, 2, 3, 4]
    replica.restore("spool")
    replica.logs(5)
    assert shipped(replica.lake) == [1, 2, 3, 4, 5]


def test_a_segment_that_holds_shipped_and_new_predictions_ships_the_new_ones(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy was made in the middle of a segment, which then grew in two ways."""
    replica.logs(1)
    replica.keep("spool")
    replica.logs(2)
    replica.restore("spool")
    log = make_log(replica.folder, replica.lake, replica.spec)
    log.append(together(row(2), row(3)))
    log.close()
    assert shipped(replica.lake) == [1, 2, 3]


def test_two_services_with_copies_of_one_folder_lose_and_double_nothing(
    replica: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.prediction_log.SEGMENT_SECONDS", 0.05)
    monkeypatch.setattr("serving.prediction_log.RETRY_SECONDS", (0.05, 0.1))
    replica.logs(1)
    other = Replica(tmp_path / "other", replica.lake, replica.spec)
    shutil.copytree(replica.folder / "spool", other.folder / "spool")
    logs = [make_log(each.folder, each.lake, each.spec) for each in (replica, other)]
    for number in range(2, 12, 2):
        logs[0].append(together(row(number)))
        logs[1].append(together(row(number + 1)))
        time.sleep(0.15)
    for log in logs:
        log.close()
    for each in (replica, other):  # What lost the race at the end waits for the next start.
        each.starts()
    assert shipped(replica.lake) == list(range(1, 12))


@pytest.mark.parametrize("how", ["restored", "deleted"])
def test_an_older_table_is_named_once_and_logging_goes_on(
    replica: Replica, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    replica.logs(1)
    replica.keep("lake")
    replica.logs(2, 3)
    if how == "restored":
        replica.restore("lake")
    else:
        shutil.rmtree(replica.folder / "lake")
    registry = CollectorRegistry()
    replica.starts(registry=registry)
    assert TABLE_OLDER in caplog.text
    assert replica.lake.uri(PREDICTIONS) in caplog.text
    found = registry.get_sample_value("perennial_prediction_log_table_older", {"model": replica.spec.name})
    assert found == pytest.approx(time.time(), abs=60)
    replica.logs(4)
    caplog.clear()
    replica.logs(5)
    assert TABLE_OLDER not in caplog.text
    assert shipped(replica.lake) == ([1, 4, 5] if how == "restored" else [4, 5])


def test_an_older_table_and_an_older_folder_together(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    replica.logs(1)
    replica.keep("lake")
    replica.logs(2)
    replica.keep("spool")
    replica.logs(3, 4)
    replica.restore("lake")
    replica.restore("spool")
    replica.logs(5)
    assert TABLE_OLDER in caplog.text  # 2 was shipped before the folder was copied.
    assert shipped(replica.lake) == [1, 5]


def test_a_table_of_the_future_of_an_older_pair(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    """The lake is lost, the folder restored, and then a copy of the lake is found that is newer than the folder."""
    replica.logs(1)
    replica.keep("spool")
    replica.logs(2, 3, 4)
    shutil.move(replica.folder / "lake", replica.folder / "newer")
    replica.restore("spool")
    replica.logs(5)
    shutil.rmtree(replica.folder / "lake")
    shutil.move(replica.folder / "newer", replica.folder / "lake")
    replica.logs(6)
    assert shipped(replica.lake) == [1, 2, 3, 4, 6]
    assert TABLE_OLDER in caplog.text


def test_a_replica_with_another_name_does_not_ship_again_what_it_has_shipped(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.logs(1)
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "delete", lambda *_: (_ for _ in ()).throw(OSError("killed before it could delete")))
        replica.logs(2)
    assert shipped(replica.lake) == [1, 2]
    replica.logs(3, replica="renamed")
    assert shipped(replica.lake) == [1, 2, 3]


def test_the_record_of_what_was_shipped_may_be_lost_or_torn(replica: Replica) -> None:
    replica.logs(1)
    record = replica.folder / "spool" / "shipped.json"
    record.write_text('{"application": "pred')
    replica.logs(2)
    record.unlink()
    replica.logs(3)
    assert shipped(replica.lake) == [1, 2, 3]


def test_a_commit_limits_its_rows_when_many_segments_wait(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "COMMIT_ROWS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "applied", lambda *_: (_ for _ in ()).throw(TransientError("the lake is away")))
        replica.logs(1, 2, 3)
    replica.logs(4)
    assert shipped(replica.lake) == [1, 2, 3, 4]
    assert replica.lake.version(PREDICTIONS) == 2
