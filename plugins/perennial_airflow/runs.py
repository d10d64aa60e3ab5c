"""Starting a DAG run from within a task."""

from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowException, ErrorType


def start_run(dag_id: str, run_id: str, conf: Mapping[str, Any], note: str) -> bool:
    """Queue a run of `dag_id`; False when there is one with this id already.

    What TriggerDagRunOperator does, without needing a task for each run. Raises AirflowException when Airflow does not
    know the DAG (yet) or cannot be reached.
    """
    from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    answer = SUPERVISOR_COMMS.send(TriggerDagRun(dag_id=dag_id, run_id=run_id, conf=dict(conf), note=note))
    if not isinstance(answer, ErrorResponse):
        return True
    if answer.error == ErrorType.DAGRUN_ALREADY_EXISTS:
        return False
    raise AirflowException(f"Airflow did not start run {run_id} of {dag_id}: {answer.error} {answer.detail}")
