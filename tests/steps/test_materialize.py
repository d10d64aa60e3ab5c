"""The materialize step by its public door: in this process, and as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from testing.redis_server import running_redis
from tests.cases import others_in_ci
from tests.feature_repo.payments_and_features import MODEL, SOURCE, compute, day, midnight, payments, put
from training.adapters.features import Features, OnlineRows
from training.adapters.lake import Lake
from training.contract.errors import ExitCode
from training.contract.messages import MaterializeInputs, MaterializeResult, StepReport
from training.contract.model_spec import load_model_spec
from training.contract.source_spec import load_source_spec
from training.contract.steps import step_command
from training.runner import run_step
from training.settings import Settings
from training.steps import materialize

Run = Callable[[Settings, dict, Path], tuple[int, StepReport]]


def run(settings: Settings, inputs: dict, report: Path, **extra: str) -> tuple[int, StepReport]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CT_HOME": str(settings.home), **extra}.items():
            patch.setenv(name, value)
        code = run_step("materialize", json.dumps(inputs), str(report))
    return code, StepReport.model_validate_json(report.read_text())


def run_alone(settings: Settings, inputs: dict, report: Path) -> tuple[int, StepReport]:
    """As `run`, in a process of its own."""
    command = [sys.executable, *step_command("materialize", inputs, str(report))]
    done = subprocess.run(command, env=os.environ | {"CT_HOME": str(settings.home)}, capture_output=True, text=True)
    return done.returncode, StepReport.model_validate_json(report.read_text())


@pytest.mark.parametrize("run", others_in_ci([run, run_alone]))
def test_the_newest_rows_are_online(settings: Settings, tmp_path: Path, run: Run) -> None:
    put(settings, *payments(12))
    versions = compute(settings, 0, 13)
    code, report = run(settings, {"source": SOURCE, "table_versions": versions}, tmp_path / "report.json")
    assert code == ExitCode.OK
    result = MaterializeResult.model_validate(report.result)
    assert result.as_of == day(12)
    assert result.rows == {"customer_features": 6, "terminal_features": 6}
    assert report.provenance.table_versions == versions
    assert json.loads((settings.home / "feast" / "card_payments.online.json").read_text()).keys() == result.rows.keys()


def test_without_feature_rows_there_is_nothing_to_do(settings: Settings, tmp_path: Path) -> None:
    code, report = run(settings, {"source": SOURCE, "table_versions": {"events": 3}}, tmp_path / "report.json")
    assert code == ExitCode.OK
    result = MaterializeResult.model_validate(report.result)
    assert (result.as_of, sum(result.rows.values())) == (None, 0)


@pytest.mark.long
def test_a_table_without_version_is_bad_input(settings: Settings, tmp_path: Path) -> None:
    put(settings, *payments(12))
    versions = compute(settings, 0, 13)
    del versions["terminal_features"]
    code, report = run(settings, {"source": SOURCE, "table_versions": versions}, tmp_path / "report.json")
    assert code == ExitCode.BAD_INPUT
    assert report.error is not None
    assert "terminal_features" in report.error.message


@pytest.mark.long
def test_a_redis_whose_name_has_no_address_is_tried_again(settings: Settings, tmp_path: Path) -> None:
    put(settings, *payments(12))
    inputs = {"source": SOURCE, "table_versions": compute(settings, 0, 13)}
    code, report = run(settings, inputs, tmp_path / "report.json", CT_ONLINE_STORE="redis://redis.invalid:6379/1")
    assert code == ExitCode.TRANSIENT
    assert report.error is not None
    assert report.error.retryable
    assert "redis.invalid" in report.error.message


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """The setting CT_ONLINE_STORE, and a function that loses all that is online."""
    if request.param == "sqlite":
        # A write-ahead log is beside the file.
        yield (
            str(tmp_path / "home" / "online.db"),
            lambda: [path.unlink() for path in tmp_path.glob("home/online.db*")],
        )
        return
    from redis import Redis

    with running_redis(tmp_path) as port, Redis(port=port, db=1) as client:
        yield f"redis://127.0.0.1:{port}/1", client.flushdb


@pytest.mark.ci
def test_a_store_that_was_lost_is_filled_again_without_naming_versions(
    settings: Settings, store: tuple[str, Callable[[], object]]
) -> None:
    settings, lose = settings.model_copy(update={"online_store": store[0]}), store[1]
    spec = load_model_spec(MODEL)
    put(settings, *payments(12))
    OnlineRows(settings, spec.source).materialize(compute(settings, 0, 13))
    rows = payments(1)[0].assign(event_time=pd.Timestamp(midnight(12))).to_dict("records")
    before = Features(settings, spec).online(rows)
    assert all(before.timestamps), "all of them are online"
    lose()
    command = [sys.executable, "-m", "training.restore_online", SOURCE]
    environment = os.environ | {"CT_HOME": str(settings.home), "CT_ONLINE_STORE": store[0]}
    for _ in range(2):
        subprocess.run(command, env=environment, check=True)
        after = Features(settings, spec).online(rows)
        np.testing.assert_array_equal(after.values, before.values)
        assert after.timestamps == before.timestamps


def test_a_restore_that_began_before_newer_rows_came_leaves_them(settings: Settings) -> None:
    """It looked up the newest versions, and a data run put its rows online before the restore could."""
    spec = load_source_spec(SOURCE)
    put(settings, *payments(12))
    found = compute(settings, 0, 13)
    put(settings, *payments(12, seed=1))
    result = materialize.run(MaterializeInputs(source=SOURCE, table_versions=compute(settings, 0, 13)), settings)
    late = materialize.run(MaterializeInputs(source=SOURCE, table_versions=found), settings)
    assert (sum(result.rows.values()), sum(late.rows.values())) == (12, 0)
    newest = materialize.run(MaterializeInputs(source=SOURCE), settings)
    assert newest.table_versions == Lake(settings.lake, SOURCE).versions(*spec.entities)
    assert newest.rows == result.rows


def test_before_any_feature_rows_a_restore_does_nothing(settings: Settings) -> None:
    assert materialize.run(MaterializeInputs(source=SOURCE), settings).as_of is None
