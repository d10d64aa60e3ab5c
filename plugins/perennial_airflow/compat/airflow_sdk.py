"""Private parts of Airflow's task SDK."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.param import DagParam

__all__ = ["DagParam", "ResolveMixin", "dag_param_name", "load_task_plugins", "trigger_dag_run"]

_loading = False


def dag_param_name(param: DagParam) -> str:
    """The name of the DAG parameter that `dag.param(name)` refers to."""
    return param._name


def trigger_dag_run(
    dag_id: str, run_id: str, conf: Mapping[str, Any], note: str, at: datetime | None, again: bool = False
) -> Any:
    """Ask the task's supervisor to queue a run, only within a task. An ErrorResponse when Airflow refuses.

    It does not start before `at`; None: it starts now. `again`: all tasks of a run that exists are cleared.

    TriggerDagRunOperator does the same, but needs a task for each run.
    """
    # Imported here: this module is imported outside of tasks, too, where there is no supervisor.
    from airflow.sdk.execution_time.comms import TriggerDagRun
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    message = TriggerDagRun(dag_id=dag_id, run_id=run_id, conf=dict(conf), note=note, run_after=at, reset_dag_run=again)
    return SUPERVISOR_COMMS.send(message)


def load_task_plugins() -> None:
    """Load the plugins for tasks; processes that are forked from this one then have them.

    This runs the files of the plugins once more, and so calls this again, which has no effect.
    """
    global _loading
    if not _loading:
        _loading = True
        from airflow.sdk.listener import get_listener_manager
        from airflow.sdk.plugins_manager import integrate_macros_plugins

        get_listener_manager()
        integrate_macros_plugins()
