"""The gauges that tasks send: when each step succeeded and failed last, what a look measured, which
requests for approval are open, how full the disk is.

The process of a task sends a value once, then ends. So outcomes are times, in seconds since 1970, and no counters:
those would begin at 0 in each process. The scheduler sends the failure of a task whose process died before it could.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from airflow.sdk.observability.stats import Stats

from perennial_airflow.compat.airflow_stats import server_stats
from perennial_airflow.reports import RunFailedError
from training import storage
from training.settings import load_settings

#: `Stats.gauge` of the process of a task, or that of the scheduler.
Gauge = Callable[..., None]


def task_failed(task_instance: Any, error: object, in_task: bool) -> None:
    """Send the metric of a failed step, when its task is not tried again. Does nothing for a task without a step.

    `in_task`: this is the process of the task. Else it is the scheduler, whose tasks come from the database: of a
    task's attributes they have the template fields, which Airflow has not filled in.
    """
    if task_instance.state != "failed" or isinstance(error, RunFailedError):
        return
    task = getattr(task_instance, "task", None)
    mapped = getattr(task, "partial_kwargs", {})
    step, *given = (mapped.get(name, getattr(task, name, None)) for name in ("step", "inputs", "more_inputs"))
    if step is not None:
        inputs = {name: value for each in given if isinstance(each, Mapping) for name, value in each.items()}
        _outcome("failed", str(step), inputs, Stats.gauge if in_task else server_stats.gauge)


def step_succeeded(step: str, inputs: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Send the metrics of a step that has succeeded: when, and what it measured."""
    _outcome("succeeded", step, inputs)
    names = {"drift": ("drifted", "drifted_share"), "performance": ("degraded",)}.get(step, ())
    for name in names if result.get("outcome") == "measured" else ():
        Stats.gauge(f"perennial.monitor.{name}", float(result[name]), tags={"model": inputs["model"]})
    # `waiting` of other steps is something else.
    if step in ("request_approval", "record_approval"):
        waiting = result["waiting"]
        Stats.gauge("perennial.approval.open", waiting["count"], tags={"model": inputs["model"]})
        if waiting["since"]:
            since = datetime.fromisoformat(waiting["since"]).timestamp()
            Stats.gauge("perennial.approval.open_since", since, tags={"model": inputs["model"]})


def delivery_given_up(source: str) -> None:
    """Send the metric of a delivery of `source` that is not taken in and not tried again."""
    Stats.gauge("perennial.data.not_taken_in", time.time(), tags={"source": source})


def _outcome(name: str, step: str, inputs: Mapping[str, Any], gauge: Gauge | None = None) -> None:
    send = gauge or Stats.gauge
    subject = {kind: str(inputs[kind]) for kind in ("source", "model") if inputs.get(kind)}
    send(f"perennial.step.{name}", time.time(), tags={"step": step, **subject})
    lake = load_settings().lake
    if not storage.is_remote(lake):
        # A worker that does not mount the disk of the lake, or has no lake yet.
        with suppress(OSError):
            usage = shutil.disk_usage(lake)
            send("perennial.disk.free_share", usage.free / usage.total, tags={"of": "lake"})
