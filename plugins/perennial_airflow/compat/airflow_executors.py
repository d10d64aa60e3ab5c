"""Private parts of Airflow's executors."""

from multiprocessing import Process
from multiprocessing.connection import wait

import psutil
from airflow.executors.local_executor import LocalExecutor as AirflowLocalExecutor

__all__ = ["AirflowLocalExecutor", "free_queue", "wait_for_result"]


def wait_for_result(executor: AirflowLocalExecutor, seconds: float, woken: int | None) -> None:
    """Return when the executor's task processes have left a result, or `woken`, the end of a pipe, can be read; at the
    latest after `seconds`."""
    reader = executor.result_queue._reader  # type: ignore[attr-defined]
    wait([reader] if woken is None else [reader, woken], seconds)


def free_queue(executor: AirflowLocalExecutor) -> None:
    """Let the executor's processes take tasks again after one of them was killed.

    A process that waits for a task holds the lock of the queue, so that one alone reads from it. When that process is
    killed, nobody releases the lock. So end the processes that wait: the executor replaces them when it has tasks. If
    the queue is still locked, a dead process has locked it, not one that runs a task; those continue.
    """
    lock = executor.activity_queue._rlock  # type: ignore[attr-defined]
    while not lock.acquire(block=False):
        waiting = [each for each in executor.workers.values() if each.is_alive() and not _runs_a_task(each)]
        if not waiting:
            break
        for each in waiting:
            each.kill()
            each.join()
    lock.release()


def _runs_a_task(process: Process) -> bool:
    """By its title, which a process has soon after it has begun: it is `… <idle>` before it waits for a task."""
    try:
        title = " ".join(psutil.Process(process.pid).cmdline())
    except psutil.Error:
        return False
    return title.startswith("airflow worker") and "<idle>" not in title
