"""The base class of every operator that runs a step. Launchers (perennial_airflow/launchers) extend it."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from perennial_airflow.life.recording import step_ended
from perennial_airflow.refs import FAILURE
from perennial_airflow.reports import RunFailedError, StepFailedError, summary
from perennial_airflow.step_metrics import step_succeeded
from training import storage
from training.contract.steps import step_spec
from training.settings import StateSettings, load_settings

#: Takes a step's result and the run's context, and returns the extra of an asset event; None: send no event.
Event = Callable[[dict[str, Any], Any], dict[str, Any] | None]
#: The key of an XCom of a step that has failed for good, and not because an outage lasted longer than its retries.
NO_RETRY_HELPS = "no_retry_helps"
#: Longest failure message, in characters, that other tasks get. It becomes an input on a step's command line.
MAXIMUM_WHY = 1000


class StepTask(BaseOperator):
    """Runs one step and returns its result, which becomes the task's XCom. A launcher is a subclass.

    - `inputs`: the step's inputs. Values may be Jinja, `result(task)[...]`, `dag.param(...)` or `FromRun(function)`.
    - `more_inputs`: added to `inputs`. For mapping: `.expand(more_inputs=[{"estimator": "mlp"}, …])`.
    - `run_if`: the task is skipped unless one of these values is true.
    - `emits`, `event`: when the step has succeeded, an event of the asset `emits` is sent. `event` returns its extra.
    - `then_fail`: when the step has succeeded, the task fails with this message. Use it for a task that cleans up after
      a failure: it is the last task of its run and decides the state of the run.

    The task fails without a retry when the inputs, the configuration or the data are wrong, and is retried after a
    transient failure. Any other failure is tried once more. A missing report is a failure. A mapped task that fails
    leaves the reason as an XCom (`result(task).missing`).
    """

    # `step` is not a template. The scheduler has only these attributes of a task (step_metrics.task_failed).
    template_fields: Sequence[str] = ("step", "inputs", "more_inputs", "run_if")
    template_fields_renderers = {"inputs": "json", "more_inputs": "json"}
    ui_color = "#e8f4ea"

    def __init__(
        self,
        *,
        step: str,
        inputs: Any,
        more_inputs: Any = None,
        run_if: Sequence[Any] = (),
        emits: Asset | None = None,
        event: Event | None = None,
        then_fail: str = "",
        **kwargs: Any,
    ) -> None:
        spec = step_spec(step)
        if kwargs.get("execution_timeout") is None:
            # The launcher ends the step in time. This limit is for a launcher that fails to.
            kwargs["execution_timeout"] = timedelta(seconds=spec.timeout_seconds + 60)
        if emits is not None:
            # An alias: a task with an asset as its outlet always sends an event.
            kwargs["outlets"] = [AssetAlias(emits.name)]
        super().__init__(**{"task_id": step, "doc_md": spec.summary, **kwargs})
        self.step = step
        self.inputs = inputs
        self.more_inputs = more_inputs
        self.run_if = run_if
        self.emits = emits
        self.event = event
        self.then_fail = then_fail

    def execute(self, context: Any) -> dict[str, Any]:
        if self.run_if and not any(self.run_if):
            raise AirflowSkipException(f"There is nothing for {self.step} to do in this run.")
        return self.conclude(lambda: self.run_step(context), context)

    def run_step(self, context: Any) -> dict[str, Any]:
        """Run the step to its end and return its result. Raises StepFailedError."""
        raise NotImplementedError

    def conclude(self, run: Callable[[], dict[str, Any]], context: Any) -> dict[str, Any]:
        """Call `run`, which runs the step, and return the step's result.

        Sends the event. Raises AirflowFailException for a failure that must not be retried, and AirflowException for
        any other.
        """
        try:
            result = run()
        except StepFailedError as error:
            step_ended(self.step, self.all_inputs, context, error=str(error))
            if self.more_inputs is not None:
                # Airflow deletes this XCom when the task is tried again.
                context["ti"].xcom_push(FAILURE, {**self.more_inputs, "why": str(error)[:MAXIMUM_WHY]})
            last = error.attempts is not None and context["ti"].try_number >= error.attempts
            if last:
                context["ti"].xcom_push(key=NO_RETRY_HELPS, value=True)
            raise (AirflowFailException if last else AirflowException)(str(error)) from None
        settings = load_settings()
        for line in summary(self.step, result, settings.mlflow_url or settings.tracking_uri):
            self.log.info("%s", line)
        step_ended(self.step, self.all_inputs, context, result)
        self._emit(result, context)
        step_succeeded(self.step, self.all_inputs, result)
        if self.then_fail:
            raise RunFailedError(self.then_fail)
        return result

    @property
    def all_inputs(self) -> dict[str, Any]:
        return {**self.inputs, **(self.more_inputs or {})}

    def _emit(self, result: dict[str, Any], context: Any) -> None:
        extra = self.event(result, context) if self.event else {}
        if self.emits is None or extra is None:
            return
        self.log.info("Event of asset %s: %s", self.emits.name, json.dumps(extra))
        context["outlet_events"][AssetAlias(self.emits.name)].add(self.emits, extra=extra)


def report_uri(settings: StateSettings, ti: Any, attempt: int | None = None) -> str:
    """Where try number `attempt` writes its report; by default the current try. Each try has its own file."""
    task = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}-{ti.map_index}"
    return storage.join(settings.results, str(ti.dag_id), str(ti.run_id), task, f"{attempt or ti.try_number}.json")
