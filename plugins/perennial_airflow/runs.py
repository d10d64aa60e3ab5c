"""Starts a DAG run from within a task."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowException, ErrorType

from perennial_airflow.compat.airflow_sdk import trigger_dag_run


def start_run(
    dag_id: str, run_id: str, conf: Mapping[str, Any], note: str, at: datetime | None = None, again: bool = False
) -> bool:
    """Queue a run of `dag_id` that starts at the time `at`, or now; False when there is already a run with this id.

    `again`: that run is cleared then, so that it starts anew; it ends what the run was doing.
    Raises AirflowException when Airflow does not know the DAG yet or cannot be reached.
    """
    from airflow.sdk.execution_time.comms import ErrorResponse

    answer = trigger_dag_run(dag_id, run_id, conf, note, at, again)
    if not isinstance(answer, ErrorResponse):
        return True
    if answer.error == ErrorType.DAGRUN_ALREADY_EXISTS:
        return False
    raise AirflowException(f"Airflow did not start run {run_id} of {dag_id}: {answer.error} {answer.detail}")
