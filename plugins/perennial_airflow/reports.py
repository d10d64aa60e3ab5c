"""Reads a step's report: its result, or the error message for the task's log."""

import signal
from collections.abc import Iterator
from typing import Any

from airflow.sdk.exceptions import AirflowFailException
from pydantic import ValidationError

from training import storage
from training.contract.errors import NEVER_RETRY, ExitCode
from training.contract.messages import StepReport
from training.contract.steps import StepSpec


class StepFailedError(Exception):
    """The step failed. `attempts` is how often to try after such a failure; None: as often as Airflow is set to."""

    def __init__(self, message: str, attempts: int | None = None) -> None:
        super().__init__(message)
        self.attempts = attempts


class RunFailedError(AirflowFailException):
    """The step has succeeded, and its task fails so that its run does (`StepTask.then_fail`)."""


#: A failure of unknown kind is tried once more. The machine may be the cause, or a bug.
UNKNOWN_ATTEMPTS = 2


def step_result(spec: StepSpec, code: int, uri: str) -> dict[str, Any]:
    """The result of a step that ended with exit code `code` and writes its report to `uri`.

    Raises StepFailedError unless the exit code is 0 and the report is complete, says success and matches the contract.
    """
    report = _read(uri)
    if report is not None and report.step != spec.name:
        raise StepFailedError(f"{uri} is the report of step {report.step!r}, not {spec.name!r}", UNKNOWN_ATTEMPTS)
    if code == ExitCode.OK and report is not None and report.result is not None:
        try:
            spec.result.model_validate(report.result)
        except ValidationError as error:
            raise StepFailedError(f"The result of {spec.name} breaks its contract: {error}", UNKNOWN_ATTEMPTS) from None
        return report.result
    raise StepFailedError(_explain(spec.name, code, report, uri), _attempts(code))


def _read(uri: str) -> StepReport | None:
    try:
        return StepReport.model_validate_json(storage.read(uri) or b"")
    except (OSError, ValidationError):
        return None


def _attempts(code: int) -> int | None:
    if code in NEVER_RETRY:
        return 1
    return None if code == ExitCode.TRANSIENT else UNKNOWN_ATTEMPTS


def _explain(step: str, code: int, report: StepReport | None, uri: str) -> str:
    if report is not None and report.error is not None and code != ExitCode.OK:
        hint = f"\n  → {report.error.hint}" if report.error.hint else ""
        return f"{step}: {report.error.message}{hint}"
    if code < 0:
        name = signal.Signals(-code).name
        return f"{step} was ended by {name} and left no report.\n  → After SIGKILL, check whether memory ran out."
    lacking = "left no readable report" if report is None else f"its report says it {report.status}"
    return (
        f"{step} ended with exit code {code} but {lacking}, so what it did is unknown: {uri}\n"
        "  → Run the step again, which is safe. The end of this log shows how far it came."
    )


def summary(step: str, result: dict[str, Any], mlflow_url: str) -> Iterator[str]:
    """The main values of a result, one line each: numbers, versions, paths, links."""
    yield f"{step} is done:"
    snapshot = result.get("snapshot") or {}
    for field, value in {**result, **snapshot}.items():
        if field == "table_versions" and value:
            yield "  tables: " + ", ".join(f"{table} v{version}" for table, version in sorted(value.items()))
        elif field == "run_id" and mlflow_url.startswith("http"):
            yield f"  MLflow run: {mlflow_url.rstrip('/')}/#/runs/{value}"
        elif isinstance(value, str | int | float) and value != "":
            yield f"  {field.replace('_', ' ')}: {value}"
