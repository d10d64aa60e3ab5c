"""The materialize step by its public door: a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.feature_repo.payments_and_features import SOURCE, compute, day, payments, put
from training.contract.errors import ExitCode
from training.contract.messages import MaterializeResult, StepReport
from training.contract.steps import step_command
from training.settings import Settings


def run(settings: Settings, inputs: dict, report: Path, **extra: str) -> tuple[int, StepReport]:
    command = [sys.executable, *step_command("materialize", inputs, str(report))]
    environment = os.environ | {"CT_HOME": str(settings.home)} | extra
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, StepReport.model_validate_json(report.read_text())


def test_the_newest_rows_are_online(settings: Settings, tmp_path: Path) -> None:
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


def test_a_table_without_version_is_bad_input(settings: Settings, tmp_path: Path) -> None:
    put(settings, *payments(12))
    versions = compute(settings, 0, 13)
    del versions["terminal_features"]
    code, report = run(settings, {"source": SOURCE, "table_versions": versions}, tmp_path / "report.json")
    assert code == ExitCode.BAD_INPUT
    assert report.error is not None
    assert "terminal_features" in report.error.message


def test_a_redis_whose_name_has_no_address_is_tried_again(settings: Settings, tmp_path: Path) -> None:
    put(settings, *payments(12))
    inputs = {"source": SOURCE, "table_versions": compute(settings, 0, 13)}
    code, report = run(settings, inputs, tmp_path / "report.json", CT_ONLINE_STORE="redis://redis.invalid:6379/1")
    assert code == ExitCode.TRANSIENT
    assert report.error is not None
    assert report.error.retryable
    assert "redis.invalid" in report.error.message
