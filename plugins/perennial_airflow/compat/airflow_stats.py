"""Private parts of Airflow's metrics."""

from airflow._shared.observability.metrics import stats as server_stats

#: Sends metrics from Airflow's own processes, which the stats of the task SDK do not.
__all__ = ["server_stats"]
