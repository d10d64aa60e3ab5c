"""Errors. The type says whether a retry can help, the message what failed, and the hint what to do next.

Exit codes follow sysexits.h (`os.EX_*`): 64 usage, 65 data, 70 software, 75 temporary failure, 77 no permission,
78 configuration.
"""

import os
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of a step. A step that reaches a negative verdict has succeeded: OK."""

    OK = os.EX_OK
    BAD_INPUT = os.EX_USAGE
    DATA_CONTRACT = os.EX_DATAERR
    SOFTWARE = os.EX_SOFTWARE
    TRANSIENT = os.EX_TEMPFAIL
    NOT_TO_SERVE = os.EX_NOPERM
    BAD_CONFIG = os.EX_CONFIG


#: Exit codes after which the same call would fail again.
NEVER_RETRY = frozenset({ExitCode.BAD_INPUT, ExitCode.DATA_CONTRACT, ExitCode.BAD_CONFIG, ExitCode.NOT_TO_SERVE})


class StepError(Exception):
    """A step failed. Subclasses set the exit code; raise a subclass where the cause is known.

    `message` says what failed and where it looked; `hint` says what to do next.
    """

    exit_code: ExitCode = ExitCode.SOFTWARE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def retryable(self) -> bool:
        return self.exit_code not in NEVER_RETRY

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


class InputError(StepError):
    """The step's inputs are wrong: unknown model, malformed JSON, a version that does not exist."""

    exit_code = ExitCode.BAD_INPUT


class ConfigError(StepError):
    """The settings or the model spec are wrong."""

    exit_code = ExitCode.BAD_CONFIG


class DataContractError(StepError):
    """The data breaks a rule of the model spec. A retry cannot help."""

    exit_code = ExitCode.DATA_CONTRACT


class TransientError(StepError):
    """An outside system did not answer, or another process wrote at the same time. A retry may help."""

    exit_code = ExitCode.TRANSIENT


class Stopped(TransientError):
    """The step's process was stopped. A retry continues where it stopped."""


class RolloutAborted(StepError):
    """A rollout was stopped and undone: a guard tripped, or a rollback asked for another version."""

    exit_code = ExitCode.NOT_TO_SERVE
