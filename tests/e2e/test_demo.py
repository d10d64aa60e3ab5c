"""The demo on the real stack, with a program of each kind killed while it runs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from local.airflow_api import Airflow
from local.credentials import USER
from local.place import Place, Ports
from local.program import members
from local.stack import Stack
from testing.ports import free_ports

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]


class Demo:
    """`make demo ARGS=--exit` on free ports, in a state folder of its own."""

    def __init__(self, home: Path) -> None:
        self.place = Place(home, home / "landing", Ports(*free_ports(3)))
        ports = {f"{name.upper()}_PORT": str(port) for name, port in vars(self.place.ports).items()}
        command = [sys.executable, "-u", "-m", "local", "demo", "--exit"]
        self.process = subprocess.Popen(
            command,
            env=os.environ | ports | {"CT_HOME": str(home)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            print(line, end="", flush=True)

    @property
    def output(self) -> str:
        return "".join(self.said)

    def until(self, true: Callable[[], bool], what: str, seconds: float = 900) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, f"the demo ended before {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{self.output}"
            time.sleep(0.2)

    def kill(self, program: str) -> None:
        """SIGKILL, by pid; then the supervisor must have started it again."""
        supervisor = Stack(self.place).supervisor
        before = next(state.pid for state in supervisor.states() if state.name == program)
        print(f"--- killing {program}, pid {before}", flush=True)
        os.kill(before, signal.SIGKILL)

        def again() -> bool:
            return any(state.name == program and state.pid not in (0, before) for state in supervisor.states())

        self.until(again, f"{program} to be started again", 300)

    def ended(self, timeout: float) -> int:
        """Its exit code, with all that it said read."""
        code = self.process.wait(timeout)
        self._reader.join(300)
        return code

    def runs(self, kind: str, task: str) -> Callable[[], bool]:
        """Does this task run now?"""

        def now() -> bool:
            password = Stack(self.place).credentials.password
            with Airflow(self.place.airflow_url, USER, password, "card_payments", "card_fraud") as airflow:
                active = [run for run in airflow.runs(kind) if not run.over]
                return any(t.id == task and t.state == "running" for run in active for t in airflow.tasks(run))

        return now


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    started = Demo(tmp_path / "home")
    yield started
    if started.process.poll() is None:
        started.process.kill()
    Stack(started.place).stop()


def test_the_story_ends_well_though_programs_are_killed(demo: Demo) -> None:
    demo.until(lambda: "Landed events" in demo.output, "the first payments")
    demo.until(demo.runs("data", "features"), "the features step")
    demo.kill("airflow-scheduler")
    demo.until(demo.runs("train", "train"), "the first training")
    demo.kill("mlflow")
    demo.until(lambda: "Landed events of 2026-03-02" in demo.output, "the first changed week")
    demo.kill("serving")
    assert demo.ended(timeout=1200) == 0, demo.output
    assert "Timeline" in demo.output
    assert "✗" not in demo.output
    assert members(str(demo.place.home)) == []
    listening = {conn.laddr.port for conn in psutil.net_connections("tcp") if conn.status == psutil.CONN_LISTEN}
    assert not listening & set(vars(demo.place.ports).values())
