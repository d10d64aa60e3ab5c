"""A step's end, read from its exit code and its report: anything but both in order is a failure."""

import json
from pathlib import Path
from typing import Any

import pytest
from perennial_airflow.reports import StepFailedError, step_result, summary

from training.contract.errors import ExitCode
from training.contract.steps import step_spec

SPEC = step_spec("register")
RESULT = {"version": 3, "digest": "abc"}


def report(path: Path, **fields: Any) -> Path:
    path.write_text(json.dumps({"step": "register", **fields}))
    return path


def failed(code: int, path: Path) -> StepFailedError:
    with pytest.raises(StepFailedError) as raised:
        step_result(SPEC, code, str(path))
    return raised.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1.json"


def test_success_is_exit_code_zero_and_a_result_that_keeps_to_the_contract(path: Path) -> None:
    assert step_result(SPEC, 0, str(report(path, status="succeeded", result=RESULT))) == RESULT


def test_a_missing_or_torn_report_is_never_success(path: Path) -> None:
    assert "unknown" in str(failed(0, path))
    path.write_text('{"step": "register", "status": "succ')
    assert "unknown" in str(failed(0, path))


def test_a_report_that_contradicts_the_exit_code_is_no_success(path: Path) -> None:
    report(path, status="succeeded", result=RESULT)
    assert "exit code 1" in str(failed(1, path))
    error = {"type": "InputError", "message": "no", "retryable": False}
    assert "exit code 0" in str(failed(0, report(path, status="failed", error=error)))


def test_a_result_of_another_shape_or_step_is_no_success(path: Path) -> None:
    assert "version" in str(failed(0, report(path, status="succeeded", result={"digest": "abc"})))
    assert "'rollout'" in str(failed(0, report(path, step="rollout", status="succeeded", result=RESULT)))


@pytest.mark.parametrize(
    ("code", "attempts"),
    [
        (ExitCode.BAD_INPUT, 1),
        (ExitCode.DATA_CONTRACT, 1),
        (ExitCode.BAD_CONFIG, 1),
        (ExitCode.SOFTWARE, 2),
        (-9, 2),
        (0, 2),
        (ExitCode.TRANSIENT, None),
    ],
)
def test_how_often_a_failure_is_worth_trying(code: int, attempts: int | None, path: Path) -> None:
    assert failed(code, path).attempts == attempts


def test_a_failure_says_what_failed_and_what_to_do_next(path: Path) -> None:
    error = {"type": "InputError", "message": "There is no version 9", "retryable": False, "hint": "Versions: 1, 2."}
    message = str(failed(64, report(path, status="failed", error=error)))
    assert message == "register: There is no version 9\n  → Versions: 1, 2."
    assert "SIGKILL" in str(failed(-9, path.with_name("none.json")))


def test_the_summary_links_to_what_was_made() -> None:
    result = {"run_id": "r1", "artifact_uri": "/work/a", "parity": 1e-7, "table_versions": {"events": 4, "labels": 2}}
    lines = list(summary("train", result, "http://mlflow:5000/"))
    assert lines == [
        "train is done:",
        "  MLflow run: http://mlflow:5000/#/runs/r1",
        "  artifact uri: /work/a",
        "  parity: 1e-07",
        "  tables: events v4, labels v2",
    ]
