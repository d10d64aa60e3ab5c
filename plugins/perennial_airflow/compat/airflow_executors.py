"""Private parts of Airflow's executors."""

from multiprocessing.connection import wait

from airflow.executors.local_executor import LocalExecutor as AirflowLocalExecutor

__all__ = ["AirflowLocalExecutor", "wait_for_result"]


def wait_for_result(executor: AirflowLocalExecutor, seconds: float) -> None:
    """Return when the executor's task processes have left a result, at the latest after `seconds`."""
    wait([executor.result_queue._reader], seconds)  # type: ignore[attr-defined]
