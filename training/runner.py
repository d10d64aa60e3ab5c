"""Runs one step: parses its inputs, calls it, writes its report in any case, and returns the exit code."""

import errno
import json
import logging
import os
import re
import signal
import socket
import sys
import traceback
from types import FrameType

from pydantic import ValidationError

from training import object_store, storage
from training.contract.errors import ExitCode, InputError, StepError, Stopped, TransientError
from training.contract.messages import Failure, ModelInputs, Provenance, SourceInputs, StepInputs, StepReport
from training.contract.model_spec import load_model_spec
from training.contract.problems import Problem, fixes_of, problems_of
from training.contract.source_spec import load_source_spec
from training.contract.spec_file import SpecFile
from training.contract.state_uris import state_uris
from training.contract.steps import StepSpec, step_spec
from training.layout import require_layout
from training.settings import StateSettings, load_settings

log = logging.getLogger("perennial")

#: The `--result` that prints the report.
STANDARD_OUTPUT = "-"
_UNKNOWN = Provenance()
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
#: What delta-rs, Arrow and SQLite say of it, in errors of their own without a number.
_SAYS_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|database or disk is full", re.IGNORECASE)


def run_step(name: str, inputs_json: str, result_uri: str) -> int:
    """Run step `name` and write its StepReport to `result_uri` (`-`: standard output). Returns the exit code."""
    signal.signal(signal.SIGTERM, terminated)
    # Steps share their machine. By default OpenMP's threads wait for each other in a busy loop; when other processes
    # use the cores, that turns a fit of 2 s into one of 36 s. OpenMP reads this when it is loaded, so set it first.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _run(name, inputs_json, result_uri)
    except StepError as error:
        return _failed(name, result_uri, error, _UNKNOWN)


def assist_step(name: str, inputs_json: str) -> int:
    """Run the part of step `name` that further processes do. It writes no report. Returns the exit code."""
    try:
        settings, spec = _set_up(), step_spec(name)
        if assist := spec.load_assistant():
            assist(parse_inputs(spec, inputs_json, settings), settings)
        return ExitCode.OK
    except StepError as error:
        log.error("A further process of %s failed: %s", name, error)
        return error.exit_code


def _set_up() -> StateSettings:
    settings = load_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    return settings


def _run(name: str, inputs_json: str, result_uri: str) -> int:
    settings = _set_up()
    spec = step_spec(name)
    provenance = Provenance()
    try:
        inputs = parse_inputs(spec, inputs_json, settings)
        require_layout(settings)
        provenance = _provenance(inputs, settings)
        log.info("%s: %s", name, inputs.model_dump_json(exclude_none=True))
        result = spec.load()(inputs, settings)
    except StepError as error:
        return _failed(name, result_uri, error, provenance)
    except Exception as error:
        traceback.print_exc()
        return _failed(name, result_uri, _unexpected(error), provenance)
    versions = getattr(result, "table_versions", {})
    report = StepReport(
        step=name,
        status="succeeded",
        result=result.model_dump(mode="json"),
        provenance=provenance.model_copy(update={"table_versions": versions}),
    )
    try:
        write_report(result_uri, report)
    except OSError as error:  # Without its result the step has not succeeded. Run again, it finds what it has done.
        return _failed(name, result_uri, _unexpected(error), provenance)
    if result_uri != STANDARD_OUTPUT:
        log.info("%s: %s", name, json.dumps(report.result, indent=2))
    return ExitCode.OK


def _unexpected(error: Exception) -> StepError:
    """The StepError for an error that no adapter has classified. It is transient when a network failure caused it, or a
    full disk.

    So an unknown host name (DNS) is transient, whichever library raised the error.
    """
    message = f"{type(error).__name__}: {error}"
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in _NO_SPACE or _SAYS_NO_SPACE.search(str(cause)):
            return TransientError(message, hint="The disk or its quota is full. Free some space, then retry.")
        if (of_store := object_store.read_error(cause)) is not None:
            return of_store
        if isinstance(cause, socket.gaierror | ConnectionError | TimeoutError):
            return TransientError(message, hint="An outside system did not answer. Retry; the log has the traceback.")
        cause = cause.__cause__ or cause.__context__
    return StepError(message, hint="The traceback is in the step's log.")


def _problems(error: ValidationError, spec: StepSpec, inputs_json: str) -> list[Problem]:
    try:
        return problems_of(error, "inputs", spec.inputs, json.loads(inputs_json))
    except (ValueError, RecursionError) as cause:
        return [Problem(file="inputs", place="", what=f"They are no JSON: {cause}", fix="Quote names and texts.")]


def parse_inputs(spec: StepSpec, inputs_json: str, settings: StateSettings) -> StepInputs:
    """The step's inputs. Raises InputError that names the wrong fields, or a URI outside of the folder of its field."""
    try:
        inputs = spec.inputs.model_validate_json(inputs_json)
    except ValidationError as error:
        problems = _problems(error, spec, inputs_json)
        hint = " ".join([*fixes_of(problems), f"`python -m training {spec.name} --schema` prints what it takes."])
        what = "; ".join(map(str, problems))
        raise InputError(f"Inputs of step {spec.name} are wrong: {what}", hint=hint) from error
    for field, uri in state_uris(inputs):
        root = str(getattr(settings, uri.folder))
        if not storage.lies_in(uri, root):
            hint = f"Put it there and write its URI as CT_{uri.folder.upper()}_URI is written, without `..` and links."
            problem = f"{field} is {str(uri)!r}, which is not in the {uri.folder} folder {root}"
            raise InputError(f"Inputs of step {spec.name} are wrong: {problem}", hint=hint)
    return inputs


def _provenance(inputs: StepInputs, settings: StateSettings) -> Provenance:
    spec: SpecFile
    if isinstance(inputs, SourceInputs):
        spec = load_source_spec(inputs.source, settings.feature_repo)
    else:
        assert isinstance(inputs, ModelInputs)
        spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    return Provenance(git_sha=settings.git_sha, image=settings.image, config_hash=spec.config_hash)


def _failed(name: str, result_uri: str, error: StepError, provenance: Provenance) -> int:
    log.error("%s failed: %s", name, error)
    try:
        write_report(result_uri, failure_report(name, error, provenance))
    except OSError as problem:
        # The exit code says the same as the report. Without one, the launcher would take the step for crashed.
        log.error("The report of %s could not be written to %s: %s", name, result_uri, problem)
    return error.exit_code


def failure_report(name: str, error: StepError, provenance: Provenance = _UNKNOWN) -> StepReport:
    """The report of step `name` that ended with `error`."""
    failure = Failure(type=type(error).__name__, message=error.message, retryable=error.retryable, hint=error.hint)
    return StepReport(step=name, status="failed", error=failure, provenance=provenance)


def write_report(result_uri: str, report: StepReport) -> None:
    """Write the report atomically to `result_uri`, or print it when that is `-`."""
    text = report.model_dump_json(indent=2)
    if result_uri == STANDARD_OUTPUT:
        print(text)
    else:
        storage.write(result_uri, text.encode())


def terminated(signum: int, frame: FrameType | None) -> None:
    """A handler for SIGTERM, which ends the step with an error that a retry can fix."""
    raise Stopped("The step was stopped (SIGTERM)", hint="Run it again; it continues where it was.")
