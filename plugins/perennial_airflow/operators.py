"""Steps as Airflow tasks, and the task that turns landed files into data runs."""

import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk.observability.stats import Stats

from perennial_airflow.deliveries import Announced, Delivery, Reported, landing_folder, scan, strays
from perennial_airflow.forkserver import ForkServerLauncher
from perennial_airflow.launchers import Launcher, SubprocessLauncher, step_environment
from perennial_airflow.refs import FAILURE
from perennial_airflow.reports import StepFailedError, step_result, summary
from perennial_airflow.runs import start_run
from training import storage
from training.contract.steps import step_command, step_spec
from training.settings import Settings, load_settings

#: From a step's result and the run's context to what an event of an asset carries; None: no event.
Event = Callable[[dict[str, Any], Any], dict[str, Any] | None]
#: Characters of a failure's message that are handed on: it becomes an input of another step, on its command line.
MAXIMUM_WHY = 1000


class StepTask(BaseOperator):
    """Runs one step and hands its result on as XCom. DAG files say `StepOperator`, which is the launcher's kind of it.

    - `inputs`: the step's inputs; values may be Jinja, `result(task)[...]`, `dag.param(...)` or `FromRun(function)`.
    - `also`: more inputs, for mapping a step over several: `.expand(also=[{"estimator": "mlp"}, …])`.
    - `run_if`: the task is skipped unless one of these is true.
    - `emits`, `event`: the asset that an event goes to when the step has succeeded, and what it carries.
    - `then_fail`: why the task fails when the step has succeeded. For one that cleans up after a failure: as the last
      of its run it decides the run's state.

    Fails without a retry when the step says that its inputs, its configuration or the data are wrong; retries when it
    says that the trouble will pass; tries anything else once more. A missing report is a failure. A mapped step that
    fails leaves the reason as XCom, for a task that goes on with the results of the others (`result(task).missing`).
    """

    template_fields: Sequence[str] = ("inputs", "also", "run_if")
    template_fields_renderers = {"inputs": "json", "also": "json"}
    ui_color = "#e8f4ea"

    def __init__(
        self,
        *,
        step: str,
        inputs: Any,
        also: Any = None,
        run_if: Sequence[Any] = (),
        emits: Asset | None = None,
        event: Event | None = None,
        then_fail: str = "",
        **kwargs: Any,
    ) -> None:
        spec = step_spec(step)
        if kwargs.get("execution_timeout") is None:
            # The launcher keeps the time; this is for the case that it cannot.
            kwargs["execution_timeout"] = timedelta(seconds=spec.timeout_seconds + 60)
        if emits is not None:
            # An alias, because a task with a plain outlet cannot succeed without an event.
            kwargs["outlets"] = [AssetAlias(emits.name)]
        super().__init__(**{"task_id": step, "doc_md": spec.summary, **kwargs})
        self.step = step
        self.inputs = inputs
        self.also = also
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
        """What follows a step that `run` has run: its result and its event, or a failure of the right kind."""
        try:
            result = run()
        except StepFailedError as error:
            if self.also is not None:
                # Airflow deletes it when the task is tried again.
                context["ti"].xcom_push(FAILURE, {**self.also, "why": str(error)[:MAXIMUM_WHY]})
            last = error.attempts is not None and context["ti"].try_number >= error.attempts
            raise (AirflowFailException if last else AirflowException)(str(error)) from None
        settings = load_settings()
        for line in summary(self.step, result, settings.mlflow_url or settings.tracking_uri):
            self.log.info("%s", line)
        self._emit(result, context)
        if self.then_fail:
            raise AirflowFailException(self.then_fail)
        return result

    @property
    def all_inputs(self) -> dict[str, Any]:
        return {**self.inputs, **(self.also or {})}

    def _emit(self, result: dict[str, Any], context: Any) -> None:
        extra = self.event(result, context) if self.event else {}
        if self.emits is None or extra is None:
            return
        self.log.info("Event of asset %s: %s", self.emits.name, json.dumps(extra))
        context["outlet_events"][AssetAlias(self.emits.name)].add(self.emits, extra=extra)


class ProcessStepOperator(StepTask):
    """A step on this machine."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._launcher: Launcher | None = None

    def on_kill(self) -> None:
        if self._launcher is not None:
            self._launcher.stop()

    def run_step(self, context: Any) -> dict[str, Any]:
        settings = load_settings()
        spec = step_spec(self.step)
        uri = report_uri(settings, context["ti"])
        storage.remove(uri)
        argv = step_command(self.step, self.all_inputs, uri)
        self.log.info("%s", shlex.join(["python", *argv]))
        self._launcher = _launcher(settings, self.log)
        try:
            code = self._launcher.launch(argv, step_environment(os.environ), spec.timeout_seconds)
        except TimeoutError as error:
            raise StepFailedError(f"{self.step}: {error}", attempts=2) from None
        return step_result(spec, code, uri)


def __getattr__(name: str) -> Any:
    """`StepOperator`, chosen by CT_LAUNCHER where a DAG file imports it: only pods pay for Kubernetes' client."""
    if name != "StepOperator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if load_settings().launcher != "pod":
        return ProcessStepOperator
    from perennial_airflow.pods import PodStepOperator

    return PodStepOperator


def _launcher(settings: Settings, log: Any) -> Launcher:
    if settings.launcher == "forkserver":
        return ForkServerLauncher(log, settings.step_server)
    return SubprocessLauncher(log)


def report_uri(settings: Settings, ti: Any, attempt: int | None = None) -> str:
    """Where the report of this try lies, or of try number `attempt`. One file per try, so none reads another's."""
    task = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}-{ti.map_index}"
    return storage.join(settings.results, str(ti.dag_id), str(ti.run_id), task, f"{attempt or ti.try_number}.json")


class StartDataRunsOperator(BaseOperator):
    """Starts one run of `<model>_data` for every delivery that has none, in their order, and writes that down.

    Also tells, once, of what lies in the landing folder and is not understood.

    Killed anywhere and run again it starts none twice: a run's id says which delivery it is for.
    """

    ui_color = "#e8f4ea"

    def __init__(self, *, model: str, landing: Asset, **kwargs: Any) -> None:
        super().__init__(inlets=[landing], **kwargs)
        self.model = model
        self.landing = landing

    def execute(self, context: Any) -> list[str]:
        store = context["asset_state_store"][self.landing]
        folder = landing_folder(self.model)
        announced = Announced(store.get(Announced.KEY, {}))
        started = []
        for delivery in announced.new(scan(folder, time.time())):
            started.append(self._start(delivery, announced.number(delivery)))
            announced.add(delivery)
        store.set(Announced.KEY, announced.stored())
        self.log.info("%s: %d new deliveries%s", folder, len(started), "".join(f"\n  {run}" for run in started))
        self._tell_strays(store)
        return started

    def _tell_strays(self, store: Any) -> None:
        """Log each new one, and set the metric to the number of all."""
        found = strays(self.model)
        for stray in Reported(store.get(Reported.KEY, {})).new(found):
            self.log.warning("Not understood, and not taken in: %s", stray)
        store.set(Reported.KEY, Reported.stored(found))
        Stats.gauge("perennial.landing.not_understood", len(found), tags={"model": self.model})

    def _start(self, delivery: Delivery, number: int) -> str:
        run_id = delivery.run_id(number)
        note = f"{delivery.feed.capitalize()} of {delivery.partition.replace('_', ' to ')}"
        note += "" if number == 1 else f", delivered again (delivery {number})"
        conf: Mapping[str, Any] = {"feed": delivery.feed, "partition": delivery.partition, "file": delivery.name}
        start_run(f"{self.model}_data", run_id, conf, note)
        return run_id
