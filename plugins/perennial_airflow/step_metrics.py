"""The gauges that tasks send: when each step succeeded and failed last, what a look measured, how full the disk is.

The process of a task sends a value once, then ends. So outcomes are times, in seconds since 1970, and no counters:
those would begin at 0 in each process.
"""

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from airflow.sdk.observability.stats import Stats

from training import storage
from training.settings import load_settings


def step_failed(step: str, inputs: Mapping[str, Any]) -> None:
    """Tell that `step` has failed and is not tried again."""
    _outcome("failed", step, inputs)


def step_succeeded(step: str, inputs: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Tell that `step` has succeeded, and what it measured."""
    _outcome("succeeded", step, inputs)
    names = {"drift": ("drifted", "drifted_share"), "performance": ("degraded",)}.get(step, ())
    for name in names if result.get("outcome") == "measured" else ():
        Stats.gauge(f"perennial.monitor.{name}", float(result[name]), tags={"model": inputs["model"]})


def delivery_given_up(source: str) -> None:
    """Tell that a delivery of `source` is not taken in and not tried again."""
    Stats.gauge("perennial.data.not_taken_in", time.time(), tags={"source": source})


def _outcome(name: str, step: str, inputs: Mapping[str, Any]) -> None:
    subject = {kind: str(inputs[kind]) for kind in ("source", "model") if inputs.get(kind)}
    Stats.gauge(f"perennial.step.{name}", time.time(), tags={"step": step, **subject})
    lake = load_settings().lake
    if not storage.is_remote(lake):
        # A worker that does not mount the disk of the lake, or has no lake yet.
        with suppress(OSError):
            usage = shutil.disk_usage(lake)
            Stats.gauge("perennial.disk.free_share", usage.free / usage.total, tags={"of": "lake"})
