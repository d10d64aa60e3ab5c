"""Sends the metrics of steps that failed, also of those whose process was killed before it could send them, and
wakes the scheduler when a task has succeeded.
"""

from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from perennial_airflow.step_metrics import task_failed
from perennial_airflow.wake import wake


class Outcomes:
    """Called in the process of a task and, for a task whose process died, in the scheduler."""

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        task_failed(task_instance, error, in_task=isinstance(task_instance, RuntimeTaskInstance))

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        wake()


class OutcomesPlugin(AirflowPlugin):
    name = "perennial_outcomes"
    listeners = [Outcomes()]
