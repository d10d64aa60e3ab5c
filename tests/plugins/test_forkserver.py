"""Steps from the step server: the same ends as those of a process of their own, and begun at once."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import psutil
import pytest
from airflow.sdk.exceptions import AirflowException
from perennial_airflow.launchers import forkserver
from perennial_airflow.launchers.forkserver import ForkServerProcess

from tests.airflow_fixtures import StepServer
from training.contract.steps import step_command
from training.settings import ROOT

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the step server is Linux's: macOS must not fork so"),
]

LOGGER = logging.getLogger("test.forkserver")
#: Seconds that no test reaches unless something hangs, on a loaded machine either.
NEVER = 400
#: A module that a step server is asked to run in the place of a step; it says who it is, and does as it is told.
PROBE = """
import os, subprocess, sys, time
sys.stdout.reconfigure(line_buffering=True)
print("2026-01-05 10:00:00,123 WARNING settings", sorted(n for n in os.environ if n.startswith("CT_")))
print("preloaded" if {"sklearn", "great_expectations"} <= set(sys.modules) else "bare")
print("with charts" if "altair" in sys.modules else "light")
print("warm" if "training.steps.drift" in sys.modules else "cold")
if sys.argv[1] == "exit":
    sys.exit(int(sys.argv[2]))
child = subprocess.Popen(["sleep", "900"])
open(sys.argv[2], "w").write(f"{os.getpid()} {child.pid}")
if sys.argv[1] == "deaf":
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(900)
"""


@pytest.fixture
def server(step_server: StepServer) -> tuple[psutil.Process, Path]:
    (step_server.folder / "probe.py").write_text(PROBE)
    return step_server.process, step_server.socket


@pytest.fixture
def launcher(server: tuple[psutil.Process, Path]) -> ForkServerProcess:
    return ForkServerProcess(LOGGER, server[1])


def family(path: Path) -> list[int]:
    """The pids of the probe and of its child."""
    while not path.exists() or len(path.read_text().split()) < 2:
        time.sleep(0.02)
    return [int(pid) for pid in path.read_text().split()]


def once_there_is_a_family(path: Path, act: Callable[[], None]) -> None:
    """Call `act` in a thread when the probe has written its pids."""

    def wait() -> None:
        family(path)
        act()

    Thread(target=wait, daemon=True).start()


def gone(pids: list[int], seconds: float = NEVER) -> bool:
    deadline = time.monotonic() + seconds
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_a_step_has_its_exit_code_its_settings_and_its_libraries(
    launcher: ForkServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert launcher.launch(["-m", "probe", "exit", "75"], {"CT_HOME": "/data", "PATH": "/nowhere"}, NEVER) == 75
    assert caplog.record_tuples == [
        (LOGGER.name, logging.WARNING, "settings ['CT_HOME']"),
        (LOGGER.name, logging.INFO, "preloaded"),
        # Great Expectations is imported without its charts, as the steps do it (training/compat).
        (LOGGER.name, logging.INFO, "light"),
        (LOGGER.name, logging.INFO, "warm"),
    ]


@pytest.mark.ci
def test_the_server_itself_loads_all_that_steps_import() -> None:
    """The server of the other tests leaves libraries out, to start sooner."""
    code = """
import sys
from training.forkserver import preload
preload()
print({"evidently", "torch", "torch._dynamo", "training.estimators.mlp"} <= set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_a_real_step_writes_its_report(launcher: ForkServerProcess, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    argv = step_command("features", {"source": "card_payments", "days": None, "table_versions": {}}, str(report))
    assert launcher.launch(argv, {"CT_HOME": str(tmp_path)}, NEVER) == 0
    assert json.loads(report.read_text())["status"] == "succeeded"


def test_a_timeout_ends_the_whole_family(launcher: ForkServerProcess, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="longer than 5 s"):
        launcher.launch(["-m", "probe", "wait", str(tmp_path / "pids")], {}, 5)
    assert gone(family(tmp_path / "pids"))


def test_stop_ends_the_whole_family(launcher: ForkServerProcess, tmp_path: Path) -> None:
    once_there_is_a_family(tmp_path / "pids", launcher.stop)
    assert launcher.launch(["-m", "probe", "wait", str(tmp_path / "pids")], {}, NEVER) == -signal.SIGTERM
    assert gone(family(tmp_path / "pids"))


@pytest.mark.long
def test_a_step_that_is_deaf_to_sigterm_is_killed(launcher: ForkServerProcess, tmp_path: Path) -> None:
    once_there_is_a_family(tmp_path / "pids", launcher.stop)
    assert launcher.launch(["-m", "probe", "deaf", str(tmp_path / "pids")], {}, NEVER) == -signal.SIGKILL
    assert gone(family(tmp_path / "pids"))


@pytest.mark.long
def test_a_task_that_is_killed_outright_takes_its_step_with_it(
    server: tuple[psutil.Process, Path], tmp_path: Path
) -> None:
    task = """
import logging, sys
from pathlib import Path
from perennial_airflow.launchers.forkserver import ForkServerProcess
ForkServerProcess(logging.getLogger(), Path(sys.argv[1])).launch(["-m", "probe", "wait", sys.argv[2]], {}, 900)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", task, str(server[1]), str(tmp_path / "pids")], env=env)
    found = family(tmp_path / "pids")
    process.kill()
    process.wait()
    assert gone(found)


def test_a_killed_keeper_takes_its_step_with_it_and_is_no_success(
    launcher: ForkServerProcess, server: tuple[psutil.Process, Path], tmp_path: Path
) -> None:
    def kill() -> None:
        keeper = psutil.Process(family(tmp_path / "pids")[0]).parent()
        assert keeper is not None
        keeper.kill()

    once_there_is_a_family(tmp_path / "pids", kill)
    assert launcher.launch(["-m", "probe", "wait", str(tmp_path / "pids")], {}, NEVER) == -signal.SIGKILL
    assert gone(family(tmp_path / "pids")[:1])


def test_a_second_server_leaves_the_first_one_alone(server: tuple[psutil.Process, Path]) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "training.forkserver", "--socket", str(server[1])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Another step server listens" in done.stderr


@pytest.mark.parametrize("of", ["the server", "its process that serves a client"])
def test_a_stop_in_the_middle_of_a_fork_is_not_lost(of: str) -> None:
    """Libraries have Python call them around each fork; what a signal raises meanwhile is swallowed."""
    code = """
import os, signal, sys
from pathlib import Path
from training import forkserver
from training.own_code import OwnCode
server = os.getpid()
stop = lambda: signal.raise_signal(signal.SIGTERM)
if sys.argv[2] == "the server":
    os.register_at_fork(after_in_parent=stop)
else:
    os.register_at_fork(after_in_child=lambda: os.getppid() == server and stop())
with forkserver._listening(Path(sys.argv[1])) as listener:
    print(flush=True)
    forkserver.serve(listener, OwnCode("training"))
"""
    # The kernel keeps the path of a socket short.
    with tempfile.TemporaryDirectory(prefix="stop-") as folder:
        path = Path(folder, "steps.sock")
        command = [sys.executable, "-c", code, str(path), of]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                if of != "the server":
                    assert client.recv(1) == b"", "the process that serves this client has ended"
                    process.terminate()
                assert process.wait(NEVER) == 0


def test_stop_signals_wait_until_a_forked_process_can_handle_them() -> None:
    """Python forgets a signal that comes before it has set up the process."""
    code = """
import os, signal
from training import forkserver
stops = {signal.SIGTERM, signal.SIGINT}
blocked = lambda: stops <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
os.register_at_fork(after_in_child=lambda: print(blocked(), end=" ", flush=True))
forkserver._fork(lambda: print(blocked(), end=" ", flush=True)).join()
print(blocked())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True False False\n", done.stderr


def test_no_server_is_an_error_that_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "CONNECT_SECONDS", 0.1)
    with pytest.raises(AirflowException, match=r"No step server answers at .*\n  → Start it"):
        ForkServerProcess(LOGGER, tmp_path / "none.sock").launch(["-m", "probe"], {}, 1)
