"""Runs the step of a failed task again, with the task's inputs, on a copy of the stack's state.

The inputs hold the snapshot of the task's run: its tables' versions, its horizon, its champion. State that no snapshot
pins, such as the ledger, is read as it is now.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from local.credentials import Credentials
from local.place import Place, Ports, free_ports
from local.processes import environment, mlflow_server
from local.program import kill, members
from local.stack import Stack, answers_at, tail
from local.state_copy import copy_state
from local.step_call import StepCall, call_in, newest_failed
from training.contract.errors import InputError, StepError
from training.contract.messages import ModelInputs
from training.contract.processes import end_with_parent
from training.contract.steps import step_spec
from training.settings import ROOT, Settings, load_settings

#: Steps that wait for replicas of the prediction service, which follow the stack's registry and not a copy.
NOT_ON_A_COPY = ("rollout", "rollback")
#: Settings that are not about where state is. The step gets no other ones of this environment.
_KEPT = ("CT_MODELS_DIR", "CT_FEATURE_REPO", "CT_LOG_LEVEL")
_PATIENCE = 180.0


@dataclass(frozen=True)
class Wanted:
    """What to run again: the newest failed try of `task`, the last call in `log`, or `step` with `inputs`."""

    task: str = ""
    log: str = ""
    step: str = ""
    #: JSON, or @file.
    inputs: str = ""
    #: The folder of the copy; empty: a new one beside the state folder.
    copy: str = ""
    in_debugger: bool = False


def rerun(stack: Stack, wanted: Wanted) -> int:
    """Returns the exit code of the step, or of the debugger. The state of the stack stays as it is.

    Raises InputError when there is nothing to run again, or no copy can be made.
    """
    settings = load_settings()
    call = _call(stack.place, wanted, settings)
    spec = step_spec(call.step)
    if call.step in NOT_ON_A_COPY:
        hint = "Read its log and its report; to go on with it, clear the task in Airflow."
        raise InputError(f"{call.step} waits for replicas, which do not follow the registry of a copy", hint)
    folder = Path(wanted.copy).expanduser().absolute() if wanted.copy else _new_folder(settings, call.step)
    _describe(call, settings)
    needs_mlflow = issubclass(spec.inputs, ModelInputs)
    print(f"… copying the state to {folder}", flush=True)
    for sentence in copy_state(settings, folder, needs_mlflow):
        print(f"  {sentence}")
    place = Place(folder, Path(stack.place.as_started().landing), Ports(*free_ports(3)))
    folders = {old.rstrip("/"): str(folder / "work") for old in (settings.work, call.work) if old}
    call = call.with_paths(folders | ({call.landing: str(place.landing)} if call.landing else {}))
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps(call.inputs, indent=2))
    with _mlflow(place) if needs_mlflow else nullcontext():
        debugger = ["-m", "pdb"] if wanted.in_debugger else []
        report = ["--result", str(folder / "report.json")]
        command = [sys.executable, *debugger, "-m", "training", call.step, "--inputs", f"@{inputs}", *report]
        code = _in_foreground(command, _step_environment(place))
    # The debugger's exit code is not the step's.
    outcome = "ended" if wanted.in_debugger else "succeeded" if code == 0 else f"failed with exit code {code}"
    print(f"{call.step} {outcome} on the copy.")
    print(f"  inputs.json, report.json and what it wrote are in {folder}; delete it when you are done.")
    return code


def _call(place: Place, wanted: Wanted, settings: Settings) -> StepCall:
    if wanted.task:
        return newest_failed(place.airflow_home / "logs", wanted.task, settings)
    if wanted.log:
        return call_in(Path(wanted.log), settings)
    if not (wanted.step and wanted.inputs):
        hint = "make rerun TASK='<dag> <task>', or LOG=<log of a task>, or STEP=<step> INPUTS=@<file>."
        raise InputError("There is nothing to run again", hint)
    text = wanted.inputs
    try:
        inputs = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"Cannot read the inputs {text[:100]}: {error}", "Give JSON, or @ and a file with JSON."
        ) from error
    return StepCall(wanted.step, inputs, "INPUTS")


def _new_folder(settings: Settings, step: str) -> Path:
    beside = settings.home.with_name(f"{settings.home.name}-rerun")
    return beside / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{step}"


def _describe(call: StepCall, settings: Settings) -> None:
    print(f"Step {call.step}, from {call.found_in}")
    if call.report is None:
        return
    if error := call.report.error:
        print(f"  It failed with {error.type}: {error.message}")
    commit = call.report.provenance.git_sha
    if commit and settings.git_sha and commit != settings.git_sha:
        print(f"  It ran commit {commit[:12]}; your files are those of commit {settings.git_sha[:12]} or newer.")


def _step_environment(place: Place) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CT_") or name in _KEPT}
    return kept | place.step_environment


@contextmanager
def _mlflow(place: Place) -> Iterator[None]:
    """An MLflow server on the copy, until the context ends. Raises StepError when it does not start."""
    (place.home / "mlflow").mkdir(exist_ok=True)
    log, url = place.home / "mlflow.log", f"{place.mlflow_url}/health"
    print("… starting MLflow on the copy", flush=True)
    with log.open("w") as output:
        server = subprocess.Popen(
            mlflow_server(place).command,
            env=environment(place, Credentials.kept_in(place.home), "mlflow"),
            cwd=ROOT,
            stdout=output,
            stderr=output,
            # Ctrl-C is for the step, not for the server.
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    try:
        deadline = time.monotonic() + _PATIENCE
        while not answers_at(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise StepError(f"MLflow did not start on the copy. Its log ends:\n{tail(log)}", f"See {log}.")
            time.sleep(0.2)
        yield
    finally:
        kill(members(str(place.home)))
        server.wait()


def _in_foreground(command: list[str], env: dict[str, str]) -> int:
    # Ctrl-C reaches the step, which may be in a debugger. A handler is reset in a new program, unlike SIG_IGN.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        return subprocess.run(command, env=env, cwd=ROOT).returncode
    finally:
        signal.signal(signal.SIGINT, before)
