"""Runs a delivery again, hours later if need be, after a run that an outage ended."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from perennial_airflow.runs import start_run
from perennial_airflow.step_metrics import delivery_given_up
from perennial_airflow.step_task import NO_RETRY_HELPS

#: How long after a failure the next run starts. After the last, two days after the first failure, it is given up.
WAITS = (*(timedelta(minutes=minutes) for minutes in (5, 10, 20, 40)), *(timedelta(hours=1),) * 47)
#: The id of a run that repeats another: that one's id, and how often it was repeated.
_REPEATED = re.compile(r"(?P<first>.*)-again-(?P<times>\d+)", re.DOTALL)


class TryAgainLaterOperator(BaseOperator):
    """The last task of a run that takes in a delivery. When the run has failed, it queues the same run for later.

    The steps' own retries end within minutes; this covers an outage of hours. A run is not repeated when a step said
    that no retry helps: the data, the inputs or the configuration are wrong, or it failed twice for an unknown reason.
    After the last of `waits` it is not repeated either. Both set the metric `perennial.data.not_taken_in`.

    It can be killed and run again: a repetition's id is made of the run's id, so it is queued once. The task always
    fails, because the state of the last task is that of the run.
    """

    ui_color = "#e8f4ea"

    def __init__(self, *, source: str, waits: Sequence[timedelta] = WAITS, **kwargs: Any) -> None:
        # Airflow itself may be what is away: it tries for hours.
        patience = {"retries": 100, "max_retry_delay": timedelta(minutes=10)}
        super().__init__(**{"trigger_rule": "one_failed", **patience, **kwargs})
        self.source = source
        self.waits = tuple(waits)

    def execute(self, context: Any) -> None:
        run, found = context["dag_run"], _REPEATED.fullmatch(context["dag_run"].run_id)
        first, times = (found["first"], int(found["times"])) if found else (run.run_id, 0)
        upstream = sorted(self.upstream_task_ids)
        if any(context["ti"].xcom_pull(task_ids=upstream, key=NO_RETRY_HELPS)):
            self._give_up("The run failed, and would fail again: see the task that failed")
        if times >= len(self.waits):
            self._give_up(f"The run was repeated {times} times, and failed each time: it is not repeated again")
        at = datetime.now(UTC) + self.waits[times]
        note = f"Repetition {times + 1} of at most {len(self.waits)} of {first}, which failed"
        start_run(run.dag_id, f"{first}-again-{times + 1}", run.conf or {}, note, at)
        raise AirflowFailException(
            f"The run failed. It will be repeated at {at:%Y-%m-%d %H:%M} UTC.\n"
            "  → If the cause is already fixed, clear the failed tasks of this run."
        )

    def _give_up(self, problem: str) -> None:
        delivery_given_up(self.source)
        raise AirflowFailException(f"{problem}\n  → Fix the cause, then clear the failed tasks of this run.")
