"""Finds the step that a task ran, and the step's inputs, in the log of the task."""

import json
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training import storage
from training.contract.errors import InputError
from training.contract.messages import StepReport
from training.contract.names import did_you_mean
from training.settings import StateSettings

_COMMAND = re.compile(r"python -m training(\.distributed)? ")
#: The end of the path of a report: `results/<dag>/<run>/<task>/<try>.json` in the work folder.
_PARTS_OF_A_REPORT = 5


@dataclass(frozen=True)
class StepCall:
    """A call of a step. `found_in`: where it is from, for messages. `report`: None when there is none."""

    step: str
    inputs: dict[str, Any]
    found_in: str
    #: The work folder and the landing folder of the stack that ran it; empty: not known.
    work: str = ""
    landing: str = ""
    report: StepReport | None = None

    def with_paths(self, folders: dict[str, str]) -> "StepCall":
        """The call with inputs that lie in a folder of `folders` taken from the folder that it maps to."""

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: moved(each) for key, each in value.items()}
            if isinstance(value, list):
                return [moved(each) for each in value]
            for old, new in folders.items():
                if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
                    return new + value[len(old) :]
            return value

        return replace(self, inputs=moved(self.inputs))


def call_in(log: Path, settings: StateSettings) -> StepCall:
    """The last call of a step in a task's log: Airflow's file, or the text that its UI downloads.

    Raises InputError when the log has none.
    """
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"Cannot read the log {log}: {error}") from error
    for line in reversed(lines):
        text = _event(line)
        if found := _COMMAND.search(text):
            with suppress(ValueError):
                return _call(text[found.end() :], str(log), settings)
    hint = "The task failed before its step began, or it runs no step. Its log says why it failed."
    raise InputError(f"{log} has no command of a step, python -m training …", hint)


def _event(line: str) -> str:
    """The text of a line of a log: that of the field `event` if the line is JSON."""
    try:
        return str(json.loads(line)["event"])
    except (ValueError, KeyError, TypeError):
        return line


def _call(command: str, found_in: str, settings: StateSettings) -> StepCall:
    """`command` begins after `python -m training`. Raises ValueError when it is not whole."""
    words = shlex.shlex(command, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters = True, ""
    given: dict[str, str] = {}
    before = ""
    # The line may go on behind the command with text that is not shell code, so it is read no further than needed.
    for word in words:
        if word == "--inputs":
            given |= {"step": before, word: next(words, "")}
        elif word == "--result":
            given[word] = next(words, "")
            break
        before = word
    if "--inputs" not in given:
        raise ValueError(f"no --inputs in {command}")
    inputs = json.loads(given["--inputs"])
    uri = given.get("--result", "")
    parts = uri.split("/")
    work = "/".join(parts[:-_PARTS_OF_A_REPORT]) if parts[-_PARTS_OF_A_REPORT:][:1] == ["results"] else ""
    return StepCall(given["step"], inputs, found_in, work, _landing(inputs), _report(uri, work, settings))


def _landing(inputs: dict[str, Any]) -> str:
    """The folder in which `inputs` of ingest name a file: <landing>/<source>/<feed>/<partition>.parquet."""
    folder, _, _ = str(inputs.get("uri", "")).rpartition("/")
    end = f"/{inputs.get('source')}/{inputs.get('feed')}"
    return folder.removesuffix(end) if folder.endswith(end) else ""


def _report(uri: str, work: str, settings: StateSettings) -> StepReport | None:
    here = settings.work.rstrip("/") + uri[len(work) :] if work else uri
    try:
        return StepReport.model_validate_json((storage.read(here) if here else None) or b"")
    except (OSError, ValidationError):
        return None


def newest_failed(logs: Path, task: str, settings: StateSettings) -> StepCall:
    """The call of the newest try, among the logs in Airflow's folder `logs`, that left no report of success.

    `task`: `<dag> <task> [<run id>] [<map index>]`. Raises InputError when there is none.
    """
    tries = _tries(logs, task)
    for log in tries:
        with suppress(InputError):
            call = call_in(log, settings)
            if call.report is None or call.report.status == "failed":
                return call
    if not tries:
        folders = logs.glob("dag_id=*/run_id=*/task_id=*")
        known = sorted({" ".join(part.partition("=")[2] for part in (path.parts[-3], path.name)) for path in folders})
        meant = did_you_mean(" ".join(task.split()[:2]), known)
        hint = f"{meant}Tasks with logs: {', '.join(known)}." if known else "Name a log: make rerun LOG=<file>."
        raise InputError(f"No log of a try of the task {task!r} in {logs}", hint)
    hint = f"To run the newest try again anyway: make rerun LOG='{tries[0]}'"
    raise InputError(f"None of the {len(tries)} tries of the task {task!r} in {logs} failed in its step", hint)


def _tries(logs: Path, task: str) -> list[Path]:
    """The logs of the tries of `task`, the newest first."""
    dag, name, *rest = task.split() if len(task.split()) > 1 else ("", "")
    index = rest.pop() if rest and rest[-1].isdigit() else None
    if not dag or len(rest) > 1:
        hint = "It is '<dag> <task>', then the run id and the map index if needed: TASK='my_model_train train 0'."
        raise InputError(f"TASK is {task!r}", hint)
    runs = [run for run in logs.glob(f"dag_id={dag}/run_id=*") if not rest or run.name == f"run_id={rest[0]}"]
    found = [
        log
        for run in runs
        for log in (run / f"task_id={name}").glob("**/attempt=*.log")
        if index is None or log.parent.name == f"map_index={index}"
    ]
    return sorted(found, key=lambda log: log.stat().st_mtime, reverse=True)
