"""The executor of one machine: the scheduler's loop waits for the end of a task, and not longer than it must."""

import time
from multiprocessing import SimpleQueue
from threading import Timer
from typing import Any

import pytest
from perennial_airflow import executor as module
from perennial_airflow.executor import LocalExecutor


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
    monkeypatch.setattr(module, "WAIT_SECONDS", 20.0)
    return Executor()


def test_the_end_of_a_task_ends_the_wait(executor: Executor) -> None:
    began = time.monotonic()
    Timer(0.1, executor.result_queue.put, [("key", "success", None)]).start()
    executor.heartbeat()
    assert executor.states == [("key", "success")]
    assert time.monotonic() - began < 10


def test_a_heartbeat_without_a_result_ends(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    began = time.monotonic()
    executor.heartbeat()
    assert executor.states == []
    assert time.monotonic() - began >= 0.05


def test_it_does_not_wait_when_it_has_just_started_a_task(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(module, "wait_for_result", lambda one, seconds: waited.append(seconds))
    executor._sent = True
    executor.sync()
    assert waited == []
    executor.heartbeat()
    assert waited == [20.0]
