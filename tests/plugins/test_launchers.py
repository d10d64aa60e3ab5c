"""Launchers are found by name; a step's process, its output, its end, and that nothing of it is left."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest
from perennial_airflow.launchers import LAUNCHERS
from perennial_airflow.launchers.subprocess import ChildProcess
from perennial_airflow.step_process import step_environment
from perennial_airflow.step_task import StepTask

from training.contract.errors import ConfigError
from training.contract.steps import STEPS

#: Writes its child's pid to argv[1] and waits, as a step with worker processes does; the child ignores SIGTERM.
FAMILY = """
import signal, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(900)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(900)
"""

#: Seconds that no test reaches unless something hangs, on a loaded machine either.
NEVER = 400


@pytest.fixture
def launcher() -> ChildProcess:
    return ChildProcess(logging.getLogger("test.launcher"))


def gone(pid: int, seconds: float = NEVER) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def written(path: Path) -> int:
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    return int(path.read_text())


def test_it_returns_the_exit_code_and_logs_lines_with_the_steps_own_levels(
    launcher: ChildProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    code = """
import sys
print("2026-01-05 10:00:00,123 WARNING 3 rows quarantined", file=sys.stderr)
print("plain % output")
sys.exit(75)
"""
    assert launcher.launch(["-c", code], os.environ, NEVER) == 75
    assert set(caplog.record_tuples) == {
        ("test.launcher", logging.WARNING, "3 rows quarantined"),
        ("test.launcher", logging.INFO, "plain % output"),
    }


@pytest.mark.long
def test_a_timeout_ends_the_whole_family(launcher: ChildProcess, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="longer than 5 s"):
        launcher.launch(["-c", FAMILY, str(tmp_path / "pid")], os.environ, 5)
    assert gone(written(tmp_path / "pid"))


def test_stop_ends_the_whole_family_at_once(launcher: ChildProcess, tmp_path: Path) -> None:
    def stop() -> None:
        written(tmp_path / "pid")
        launcher.stop()

    Thread(target=stop, daemon=True).start()
    # The family sleeps for 900 s.
    assert launcher.launch(["-c", FAMILY, str(tmp_path / "pid")], os.environ, 900) == -signal.SIGTERM
    assert gone(written(tmp_path / "pid"))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_task_that_is_killed_outright_takes_its_step_with_it(tmp_path: Path) -> None:
    task = """
import logging, os, sys
from perennial_airflow.launchers.subprocess import ChildProcess
step = f"import os, time; open({sys.argv[1]!r}, 'w').write(str(os.getpid())); time.sleep(900)"
ChildProcess(logging.getLogger()).launch(["-c", step], os.environ, 900)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", task, str(tmp_path / "pid")], env=env)
    step = written(tmp_path / "pid")
    process.kill()
    process.wait()
    assert gone(step)


@pytest.mark.long
def test_a_launcher_is_found_by_name_and_no_other_is_imported() -> None:
    code = (
        "import sys; from perennial_airflow.operators import StepOperator; print(StepOperator.__name__, *sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CT_LAUNCHER": "forkserver"}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    name, *imported = done.stdout.split()
    assert name == "ForkServerStepOperator"
    assert "perennial_airflow.launchers.pod" not in imported
    assert "perennial_airflow.launchers.subprocess" not in imported


def test_an_unknown_launcher_is_an_error_that_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_LAUNCHER", "docker")
    with pytest.raises(ConfigError, match="no launcher 'docker'") as error:
        from perennial_airflow.operators import StepOperator  # noqa: F401
    assert error.value.hint == "Known launchers: forkserver, pod, subprocess."


def test_every_launcher_is_a_step_task() -> None:
    assert all(issubclass(LAUNCHERS.find(name), StepTask) for name in LAUNCHERS.names())


def test_a_step_sees_its_settings_and_none_of_airflows() -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "CT_HOME": "/data",
        "AWS_SECRET_ACCESS_KEY": "the lake's",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://airflow:secret@db",
        "AIRFLOW_HOME": "/airflow",
        "_AIRFLOW_PROCESS_CONTEXT": "client",
        "__AIRFLOW_SUPERVISOR_FD": "7",
    }
    seen = step_environment(environ, "train")
    assert set(seen) == {"PATH", "HOME", "CT_HOME", "AWS_SECRET_ACCESS_KEY", "PYTHONUNBUFFERED"}


def test_only_the_step_that_registers_gets_the_signing_key() -> None:
    environ = {"CT_SIGNING_KEY_FILE": "/keys/signing-key.pem", "CT_SIGNING_KEY_PASSWORD": "secret"}
    with_key = {step for step in STEPS if environ.items() <= step_environment(environ, step).items()}
    assert with_key == {"register"}
    for step in STEPS.keys() - with_key:
        assert not environ.keys() & step_environment(environ, step).keys()
