import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.__main__ import main
from local.place import HOST, Place, Ports
from local.preflight import disk_problem, memory_problem, port_problem, problems, python_problem
from testing.ports import free_port
from training.contract.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        holder.listen()
        yield int(holder.getsockname()[1])


def test_a_taken_port_is_named_with_its_holder_and_the_variable_to_change(taken: int) -> None:
    problem = port_problem("mlflow", taken)
    assert problem is not None
    assert f"Port {taken} is in use" in problem
    assert f"pid {os.getpid()}" in problem
    assert "MLFLOW_PORT=" in problem


def test_a_free_port_is_no_problem() -> None:
    assert port_problem("mlflow", free_port()) is None


@pytest.mark.parametrize(("version", "fits"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((3, 13), False)])
def test_python_versions(version: tuple[int, int], fits: bool) -> None:
    assert (python_problem(version) is None) == fits


def test_a_full_disk_is_reported_for_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert disk_problem(tmp_path / "not" / "yet", least=0) is None
    problem = disk_problem(tmp_path / "not" / "yet", least=2**60)
    assert problem is not None
    assert "STATE=" in problem


def test_too_little_memory_is_reported() -> None:
    assert memory_problem(least=0) is None
    assert "memory" in str(memory_problem(least=2**60))


def test_every_problem_is_found_at_once(tmp_path: Path, taken: int) -> None:
    place = Place(tmp_path, tmp_path / "landing", Ports(airflow=taken, mlflow=taken, serving=free_port()))
    ports = [problem for problem in problems(place) if "Port" in problem]
    assert len(ports) == 2


@pytest.mark.parametrize(("name", "value"), [("MLFLOW_PORT", "many"), ("MLFLOW_PORT", "0"), ("SERVING_PORT", "5000")])
def test_ports_that_cannot_be(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError):
        Ports.from_environment()


def test_a_socket_path_that_the_kernel_cannot_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path / ("deep" * 30)))
    with pytest.raises(ConfigError, match="too long"):
        Place.from_environment()


@pytest.mark.ci
def test_a_program_says_what_is_wrong_without_a_traceback(tmp_path: Path, taken: int) -> None:
    env = os.environ | {"CT_HOME": str(tmp_path), "AIRFLOW_PORT": str(taken), "MLFLOW_PORT": str(free_port())}
    command = [sys.executable, "-m", "local", "up"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"Port {taken} is in use" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_up_says_what_is_wrong(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_PORT", str(taken))
    monkeypatch.setenv("MLFLOW_PORT", str(free_port()))
    assert main(["up"]) == 1
    assert f"Port {taken} is in use" in capsys.readouterr().err


def test_an_unknown_setting_is_said_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    monkeypatch.setenv("CT_TRACKING_URL", "http://elsewhere")
    assert main(["status"]) == 1
    assert "CT_TRACKING_URL" in capsys.readouterr().err


@pytest.mark.parametrize("python", ["no-such-python", "/bin/false"])
def test_setup_names_the_python_that_it_needs(tmp_path: Path, python: str) -> None:
    command = ["bash", "local/setup.sh", str(tmp_path / "venv")]
    done = subprocess.run(command, env=os.environ | {"PYTHON": python}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs Python 3.11 or 3.12" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_state_folder_that_cannot_be_is_said_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for name in ("AIRFLOW", "MLFLOW", "SERVING"):
        monkeypatch.setenv(f"{name}_PORT", str(free_port()))
    monkeypatch.setenv("CT_HOME", str(tmp_path / "file" / "state"))
    assert main(["up"]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_clean_deletes_a_stacks_state_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path / "state"))
    (tmp_path / "state" / "lake").mkdir(parents=True)
    (tmp_path / "state" / "thesis.tex").write_text("years of work")
    assert main(["clean"]) == 1
    assert "thesis.tex" in capsys.readouterr().err
    assert (tmp_path / "state" / "lake").exists()
    (tmp_path / "state" / "thesis.tex").unlink()
    assert main(["clean"]) == 0
    assert not (tmp_path / "state").exists()
