"""Errors as types: exit codes, what may be retried, what a person reads."""

import os

import pytest

from training.contract import errors
from training.contract.errors import ExitCode, StepError


@pytest.mark.parametrize(
    ("name", "code", "retryable"),
    [
        ("StepError", os.EX_SOFTWARE, True),
        ("InputError", os.EX_USAGE, False),
        ("ConfigError", os.EX_CONFIG, False),
        ("DataContractError", os.EX_DATAERR, False),
        ("TransientError", os.EX_TEMPFAIL, True),
        ("RolloutAborted", os.EX_NOPERM, False),
    ],
)
def test_the_type_fixes_the_exit_code_and_whether_a_retry_can_help(name: str, code: int, retryable: bool) -> None:
    error: StepError = getattr(errors, name)("it failed")
    assert (error.exit_code, error.retryable) == (code, retryable)


def test_codes_are_those_that_the_design_promises() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "BAD_INPUT": 64,
        "DATA_CONTRACT": 65,
        "SOFTWARE": 70,
        "TRANSIENT": 75,
        "NOT_TO_SERVE": 77,
        "BAD_CONFIG": 78,
    }


def test_the_hint_is_shown_below_the_message() -> None:
    assert str(StepError("No table", hint="Land data.")) == "No table\n  → Land data."
    assert str(StepError("No table")) == "No table"
