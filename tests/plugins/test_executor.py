"""The executor of one machine: the scheduler's loop waits for the end of a task, and not longer than it must."""

import os
import signal
import time
from multiprocessing import Event, SimpleQueue, Value, get_context
from multiprocessing.connection import wait
from threading import Timer
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from perennial_airflow import executor as module
from perennial_airflow import wake
from perennial_airflow.executor import LocalExecutor
from perennial_outcomes import Outcomes
from setproctitle import setproctitle

from testing.waiting import eventually
from tests.cases import others_in_ci

#: No heartbeat waits so long, on a loaded machine either, unless nothing wakes it.
WAIT_SECONDS = 120.0


class Executor(LocalExecutor):
    """With its queues, but no processes; keeps the states that it is told."""

    def __init__(self) -> None:
        super().__init__(parallelism=4)
        self.result_queue = SimpleQueue()
        self.activity_queue = SimpleQueue()
        self.workers = {}
        self.states: list[Any] = []

    def _check_workers(self) -> None:
        pass

    def _process_workloads(self, workload_list: Any) -> None:
        self.queued_tasks.clear()

    def change_state(self, key: Any, state: Any, *args: Any, **kwargs: Any) -> None:
        self.states.append((key, state))


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Executor:
    monkeypatch.setattr(module, "WAIT_SECONDS", WAIT_SECONDS)
    monkeypatch.setattr(wake, "_writing", None)  # Undone afterwards, whatever a test opens.
    return Executor()


def test_the_end_of_a_task_ends_the_wait(executor: Executor) -> None:
    began = time.monotonic()
    Timer(0.1, executor.result_queue.put, [("key", "success", None)]).start()
    executor.heartbeat()
    assert executor.states == [("key", "success")]
    assert time.monotonic() - began < WAIT_SECONDS


def test_a_task_that_has_succeeded_wakes_the_scheduler_before_its_process_has_ended(executor: Executor) -> None:
    """The process of a task is a fork and writes to the pipe of its scheduler."""
    executor._woken = wake.listen()
    began = time.monotonic()
    child = get_context("fork").Process(target=wake.wake)
    child.start()
    executor.heartbeat()
    assert time.monotonic() - began < WAIT_SECONDS
    child.join()
    # Once: the next heartbeat waits again.
    assert not wait([executor._woken], 0)


@pytest.mark.parametrize("succeeded", [True, False])
def test_a_success_wakes_the_scheduler_and_a_failure_does_not(executor: Executor, succeeded: bool) -> None:
    """What follows a failure is decided when its process has ended."""
    executor._woken = wake.listen()
    task = SimpleNamespace(state="success" if succeeded else "failed", task=None)
    if succeeded:
        Outcomes().on_task_instance_success(None, task)
    else:
        Outcomes().on_task_instance_failed(None, task, None)
    assert bool(wait([executor._woken], 0)) == succeeded


def test_without_the_executor_nobody_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "_writing", None)
    wake.wake()


def test_more_wakes_than_the_pipe_holds_block_no_task(executor: Executor) -> None:
    executor._woken = wake.listen()
    for _ in range(100_000):
        wake.wake()
    wake.forget(executor._woken)
    assert not wait([executor._woken], 0)


def test_a_heartbeat_without_a_result_ends(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    began = time.monotonic()
    executor.heartbeat()
    assert executor.states == []
    assert time.monotonic() - began >= 0.05


def test_it_does_not_wait_when_it_has_just_started_a_task(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(module, "wait_for_result", lambda one, seconds, woken: waited.append(seconds))
    executor._sent = True
    executor.sync()
    assert waited == []
    executor.heartbeat()
    assert waited == [WAIT_SECONDS]


def test_a_task_that_goes_on_before_its_first_process_has_ended_is_still_known() -> None:
    """As one that a person answers at once. The scheduler fails a task that runs and that no executor has."""
    executor, key = LocalExecutor(parallelism=2), TaskInstanceKey("dag", "task", "run", 1)
    executor.result_queue, executor.activity_queue, executor.workers = SimpleQueue(), SimpleQueue(), {}
    executor._unread_messages = Value("I", 0)
    executor._spawn_workers_with_gc_freeze = lambda number: None
    task, other = (SimpleNamespace(id=each, key=key._replace(task_id=each)) for each in ("task", "other"))

    def send() -> None:
        executor.queued_tasks[key] = SimpleNamespace(key=key)
        executor._process_workloads([executor.queued_tasks[key]])

    send()
    assert executor.has_task(task)
    send()
    for running in (True, False):
        executor.result_queue.put((key, TaskInstanceState.SUCCESS, None))
        executor._read_results()
        assert executor.has_task(task) == running
    assert not executor.has_task(other)
    assert executor._under_way == {}


@pytest.mark.parametrize("number", others_in_ci(range(3)))
def test_tasks_are_taken_though_a_process_was_killed_while_it_waited_for_one(number: int) -> None:
    """One of the three holds the lock of the queue."""
    executor = LocalExecutor(parallelism=3)
    executor.start()
    first = list(executor.workers)
    try:
        eventually(lambda: [title(pid) for pid in first].count(IDLE) == 3)
        os.kill(first[number], signal.SIGKILL)
        eventually(lambda: not executor.workers[first[number]].is_alive())
        for _ in range(3):
            executor.activity_queue.put(None)  # The one message that ends a process and needs no server.
            executor._unread_messages.value += 1
            executor.sync()
            eventually(executor.activity_queue.empty)
    finally:
        end(executor)


def test_a_process_that_runs_a_task_goes_on_when_another_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    others_are_killed = Event()

    def run_workload(workload: Any, proctitle: str, **kwargs: Any) -> None:
        setproctitle(proctitle)
        others_are_killed.wait()

    monkeypatch.setattr(BaseExecutor, "run_workload", staticmethod(run_workload))
    executor = Executor()
    executor.parallelism = 3
    executor.start()
    pids = list(executor.workers)
    try:
        eventually(lambda: [title(pid) for pid in pids].count(IDLE) == 3)
        task = SimpleNamespace(key="key", display_name="a task", running_state=None, success_state="success")
        executor.activity_queue.put(task)
        [busy] = eventually(lambda: [pid for pid in pids if title(pid).endswith("a task")])
        for pid in pids:
            if pid != busy:
                os.kill(pid, signal.SIGKILL)
                eventually(lambda pid=pid: not executor.workers[pid].is_alive())
        LocalExecutor._check_workers(executor)
        assert list(executor.workers) == [busy]
        others_are_killed.set()
        eventually(lambda: executor._read_results() or executor.states == [("key", "success")])
    finally:
        end(executor)


IDLE = "airflow worker -- LocalExecutor: <idle>"


def title(pid: int) -> str:
    return " ".join(psutil.Process(pid).cmdline()).strip()


def end(executor: LocalExecutor) -> None:
    for process in executor.workers.values():
        process.kill()
        process.join()
