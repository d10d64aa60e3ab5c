"""A run in parallel whose worker processes are killed ends, and names the tests that they were running."""

import re
import subprocess
import sys
from pathlib import Path

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
    written = [(name, test) for name, text in FILES.items() for test in re.findall(r"test_\w+", text)]
    assert tests == sorted(f"test_{name}.py::{test}" for name, test in written)
    workers = {test: worker for worker, test in lines}
    assert workers["test_c.py::test_3"] == workers["test_d.py::test_1"]
