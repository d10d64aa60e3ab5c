"""Airflow's LocalExecutor, but the scheduler continues as soon as a task has ended, and survives killed processes.

Airflow's scheduler sleeps between its loops when it has nothing to do (SCHEDULER_IDLE_SLEEP_TIME, which is 0 here). A
task that ends meanwhile waits for half of that sleep on average, and so does the task after it. Here the scheduler
waits for the next result, or until a task says that it has succeeded (perennial_airflow/wake.py). The idle scheduler
makes no more loops than before.

When one of Airflow's task processes is killed while it waits for a task, for example when memory runs out, no task
would run until the scheduler is restarted, and nothing would report it.

A task that waits for a person, or for a trigger, ends its process and continues in another one. If it continues before
the scheduler knows that the first process has ended, Airflow mistakes that for the end of the second one and fails the
task: the person's answer would be lost, and Airflow would ask again. So this executor counts the processes of each
task, and reports the task as running as long as one is.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from airflow.utils.state import TaskInstanceState

from perennial_airflow import wake
from perennial_airflow.compat.airflow_executors import AirflowLocalExecutor, free_queue, wait_for_result

#: An idle scheduler makes three loops a second.
WAIT_SECONDS = 0.3


class LocalExecutor(AirflowLocalExecutor):
    """See the module. Airflow mistakes an executor of another name for a distributed one, and warns about its login."""

    _sent = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: What was given to processes → how many of them have not ended.
        self._under_way = Counter[Any]()
        self._woken: int | None = None

    def start(self) -> None:
        self._woken = wake.listen()
        super().start()

    def has_task(self, task_instance: Any) -> bool:
        return self._under_way[task_instance.key] > 0 or super().has_task(task_instance)

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        self._under_way.update(workload.key for workload in workload_list)
        super()._process_workloads(workload_list)

    def change_state(self, key: Any, state: Any, *args: Any, **kwargs: Any) -> None:
        if state in (TaskInstanceState.SUCCESS, TaskInstanceState.FAILED):
            self._under_way[key] -= 1
            self._under_way = +self._under_way
        super().change_state(key, state, *args, **kwargs)

    def trigger_tasks(self, open_slots: int) -> None:
        # The scheduler has just found work, and may find more: it must not wait.
        self._sent = open_slots > 0 and bool(self.queued_tasks)
        super().trigger_tasks(open_slots)

    def sync(self) -> None:
        if not self._sent:
            wait_for_result(self, WAIT_SECONDS, self._woken)
        if self._woken is not None:
            wake.forget(self._woken)
        super().sync()

    def _check_workers(self) -> None:
        if any(not each.is_alive() and each.exitcode for each in self.workers.values()):
            self.log.warning("A process for tasks was killed. Those that wait for a task are replaced.")
            free_queue(self)
        super()._check_workers()
