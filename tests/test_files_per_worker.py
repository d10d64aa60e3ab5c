"""A run in parallel whose worker processes are killed ends, and names the tests that they were running."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from xdist.remote import Producer

from testing.files_per_worker import FilesPerWorker
from training.settings import ROOT

CONFTEST = """
import os
import signal
from pathlib import Path

import pytest

from testing.files_per_worker import FilesPerWorker


@pytest.hookimpl
def pytest_xdist_make_scheduler(config, log):
    return FilesPerWorker(config, log, {"test_c.py": "one", "test_d.py": "one"})


@pytest.fixture
def ran(request):
    with Path(os.environ["RAN"]).open("a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {request.node.nodeid}\\n")


@pytest.fixture
def killed(ran):
    os.kill(os.getpid(), signal.SIGKILL)
"""
#: Each of two workers has done a file when it dies, in the middle of the next.
FILES = {
    "a": "def test_1(ran): pass\ndef test_2(ran): pass\ndef test_3(ran): pass\n",
    "b": "def test_1(ran): pass\ndef test_2(ran): pass\ndef test_3(ran): pass\n",
    "c": "def test_1(ran): pass\ndef test_killed(killed): pass\ndef test_3(ran): pass\n",
    "d": "def test_1(ran): pass\n",
    "e": "def test_1(ran): pass\ndef test_killed(killed): pass\ndef test_3(ran): pass\n",
    "f": "def test_1(ran): pass\n",
    "g": "def test_1(ran): pass\n",
}


TESTS = [f"test_{name}.py::{test}" for name, text in FILES.items() for test in re.findall(r"test_\w+", text)]


class Worker:
    """What the scheduler sees of a process: it starts a test when it knows the next one, or that there is none."""

    def __init__(self, number: int, collects_in: int = 0) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.collects_in, self.shutting_down, self.dead = collects_in, False, False
        self.waiting: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        if self.dead:
            raise OSError("cannot send (already closed?)")
        self.waiting += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    def starts(self) -> bool:
        return bool(self.waiting) and (self.shutting_down or len(self.waiting) > 1)


def run(scheduler: Any) -> tuple[list[tuple[str, str]], list[str]]:
    """As pytest-xdist runs TESTS in two workers, until no worker does anything: (worker, test) in the order in which
    they began, and the tests that have failed. A worker in the place of a dead one takes its time to collect."""
    workers, ran, failed = [Worker(0), Worker(1)], list[tuple[str, str]](), list[str]()
    for worker in workers:
        scheduler.add_node(worker)
    for worker in workers:
        scheduler.add_node_collection(worker, TESTS)
    scheduler.schedule()
    while any(worker.starts() or worker.collects_in for worker in workers):
        for worker in list(workers):
            if worker.collects_in:
                worker.collects_in -= 1
                if not worker.collects_in:
                    scheduler.add_node_collection(worker, TESTS)
                    scheduler.schedule()
            elif worker.starts():
                test = worker.waiting[0]
                ran.append((worker.gateway.id, TESTS[test]))
                if TESTS[test].endswith("killed"):
                    worker.dead = True
                    workers.remove(worker)
                    failed.append(scheduler.remove_node(worker))
                    workers.append(Worker(len(ran), collects_in=3))
                    scheduler.add_node(workers[-1])
                else:
                    worker.waiting.pop(0)
                    scheduler.mark_test_complete(worker, test)
    return ran, failed


def test_what_a_dead_worker_has_not_run_is_run_by_others() -> None:
    option = SimpleNamespace(loadscopereorder=False)
    config: Any = SimpleNamespace(getvalue=lambda name: ["popen", "popen"], option=option)
    scheduler = FilesPerWorker(config, Producer("test", enabled=False), {"test_c.py": "one", "test_d.py": "one"})
    ran, failed = run(scheduler)
    assert sorted(failed) == ["test_c.py::test_killed", "test_e.py::test_killed"]
    assert sorted(test for _, test in ran) == sorted(TESTS)
    assert not scheduler.has_pending
    workers = {test: worker for worker, test in ran}
    assert workers["test_c.py::test_3"] == workers["test_d.py::test_1"]


@pytest.mark.ci
def test_killed_workers_lose_one_test_each(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name, text in FILES.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    ran = tmp_path / "ran"
    options = [
        "-p",
        "xdist.plugin",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)],
        # Other plugins take most of the time that a worker needs to start.
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "RAN": str(ran), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert sorted(re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)) == [
        "test_c.py::test_killed",
        "test_e.py::test_killed",
    ]
    lines = [line.split() for line in ran.read_text().splitlines()]
    tests = sorted(test for _, test in lines)
    assert tests == sorted(TESTS)
    workers = {test: worker for worker, test in lines}
    assert workers["test_c.py::test_3"] == workers["test_d.py::test_1"]
