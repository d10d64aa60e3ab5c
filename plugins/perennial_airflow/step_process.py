"""What the launchers have in common that run a step as a process on this machine."""

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from perennial_airflow.reports import StepFailedError, step_result
from perennial_airflow.step_task import StepTask, report_uri
from training import storage
from training.contract.steps import SIGNING_STEPS, step_command, step_spec
from training.settings import SIGNING, LauncherSettings, load_settings

TOO_LONG = "The step ran longer than {:.0f} s and was stopped"


class StepProcess(Protocol):
    """Runs the command of one step. It builds no command: step_command does."""

    def launch(self, argv: Sequence[str], env: Mapping[str, str], timeout: float) -> int:
        """Run the interpreter with the arguments `argv`, copy its output to the task's log, return its exit code.

        A negative exit code is the signal that ended the process. Raises TimeoutError after `timeout` seconds. When
        this returns or raises, no process of the step is left.
        """

    def stop(self) -> None:
        """End what `launch` runs. May be called from a signal handler or another thread."""


class ProcessStepOperator(StepTask):
    """Runs a step as a process on this machine. Subclasses say how the process is started."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._process: StepProcess | None = None

    def make_process(self, settings: LauncherSettings) -> StepProcess:
        """A process that has not been launched yet."""
        raise NotImplementedError

    def on_kill(self) -> None:
        if self._process is not None:
            self._process.stop()

    def run_step(self, context: Any) -> dict[str, Any]:
        settings = load_settings()
        spec = step_spec(self.step)
        uri = report_uri(settings, context["ti"])
        storage.remove(uri)
        argv = step_command(self.step, self.all_inputs, uri)
        self.log.info("%s", shlex.join(["python", *argv]))
        self._process = self.make_process(settings)
        try:
            code = self._process.launch(argv, step_environment(os.environ, self.step), spec.timeout_seconds)
        except TimeoutError as error:
            raise StepFailedError(f"{self.step}: {error}", attempts=2) from None
        return step_result(spec, code, uri)


def step_environment(environ: Mapping[str, str], step: str) -> dict[str, str]:
    """The environment of a step: the task's, without Airflow's own variables, which hold its database and secrets, and
    without the signing key, unless it is a step that signs."""
    left_out = () if step in SIGNING_STEPS else SIGNING
    own = {
        key: value
        for key, value in environ.items()
        if not key.lstrip("_").startswith("AIRFLOW") and key not in left_out
    }
    return {**own, "PYTHONUNBUFFERED": "1"}
