"""The supervisor with small programs in the place of the real ones; tests/e2e runs those."""

import json
import os
import signal
import stat
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from local.credentials import Credentials
from local.place import Place, Ports
from local.processes import Program, environment, programs
from local.program import members
from local.stack import Stack
from local.supervisor import Supervisor, configuration
from local.verbs import down, ready_to_start, up
from testing.ports import free_ports
from testing.waiting import eventually
from training.contract.errors import StepError

#: Writes its pid and that of a child, which it puts into a session of its own as steps are; then both wait.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()} {child.pid}\\n")
time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    # A socket's path is kept short by the kernel; pytest's folders are long.
    with tempfile.TemporaryDirectory(prefix="stack-") as folder:
        yield Place(Path(folder, "100% home"), tmp_path / "landing", Ports(*free_ports(3)))


@pytest.fixture
def supervisor(place: Place) -> Iterator[Supervisor]:
    made = Supervisor(place)
    yield made
    made.shutdown()


def waiting(place: Place, name: str = "waiting") -> Program:
    place.home.mkdir(parents=True, exist_ok=True)
    script = place.home / "parent.py"
    script.write_text(PARENT)
    return Program(name, [sys.executable, str(script), str(place.home / "pids")])


def env(place: Place) -> dict[str, dict[str, str]]:
    """An environment for any program that a test starts."""
    credentials = Credentials.kept_in(place.home)
    return defaultdict(
        lambda: environment(place, credentials, "other"),
        {each.name: environment(place, credentials, each.name) for each in programs(place)},
    )


def pids(place: Place, starts: int) -> list[tuple[int, int]]:
    """(pid, child's pid) of each start of the waiting program, once there were `starts`."""
    path = place.home / "pids"
    eventually(lambda: path.exists() and path.read_text().count("\n") >= starts)
    return [(int(line.split()[0]), int(line.split()[1])) for line in path.read_text().splitlines()]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_killed_program_is_started_again_and_what_it_left_is_ended(place: Place, supervisor: Supervisor) -> None:
    supervisor.boot([waiting(place)], env(place))
    supervisor.start("waiting")
    [(parent, child)] = pids(place, 1)
    os.kill(parent, signal.SIGKILL)
    second, _ = pids(place, 2)[1]
    assert second != parent
    assert alive(second)
    assert not alive(child)


def test_what_a_killed_program_left_is_ended_in_that_program_only(place: Place, supervisor: Supervisor) -> None:
    supervisor.boot([waiting(place, "one"), waiting(place, "other")], env(place))
    supervisor.start("one")
    [(one, _)] = pids(place, 1)
    supervisor.start("other")
    _, (other, child) = pids(place, 2)
    os.kill(one, signal.SIGKILL)
    pids(place, 3)
    assert alive(other)
    assert alive(child)


def test_nothing_is_left_after_a_shutdown(place: Place, supervisor: Supervisor) -> None:
    supervisor.boot([waiting(place)], env(place))
    supervisor.start("waiting")
    [(parent, child)] = pids(place, 1)
    supervisor.shutdown()
    assert not alive(parent)
    assert not alive(child)
    assert not supervisor.running
    assert not place.socket.exists()
    assert members(str(place.home)) == []


def test_a_crashed_stack_is_cleared_away_and_started_again(place: Place, supervisor: Supervisor) -> None:
    supervisor.boot([waiting(place)], env(place))
    supervisor.start("waiting")
    [(parent, child)] = pids(place, 1)
    os.kill(int((place.run / "supervisord.pid").read_text()), signal.SIGKILL)
    eventually(lambda: not supervisor.running)
    assert place.socket.exists()
    assert alive(parent)
    # Before the ports are looked at, which the orphans would hold.
    ready_to_start(Stack(place))
    assert not alive(parent)
    assert not alive(child)
    supervisor.boot([waiting(place)], env(place))
    assert supervisor.running


def test_starting_twice_starts_once(place: Place, supervisor: Supervisor) -> None:
    supervisor.boot([waiting(place)], env(place))
    supervisor.start("waiting")
    supervisor.start("waiting")
    pids(place, 1)
    time.sleep(0.5)
    assert len(pids(place, 1)) == 1


def test_a_stack_elsewhere_is_left_alone(place: Place, supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.boot([waiting(place)], env(place))
    supervisor.start("waiting")
    [(parent, _)] = pids(place, 1)
    elsewhere = Place(tmp_path / "elsewhere", tmp_path / "landing", Ports())
    Supervisor(elsewhere).shutdown()
    assert alive(parent)


def test_a_supervisor_that_cannot_start_says_why(place: Place, supervisor: Supervisor) -> None:
    with pytest.raises(StepError, match="supervisord did not start"):
        supervisor.boot([Program("not:valid", ["true"])], env(place))


def test_a_start_says_when_the_stack_is_stopped_from_elsewhere(
    place: Place, supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.boot([waiting(place, program.name) for program in programs(place)], env(place))
    place.remember()
    place.airflow_home.mkdir(parents=True)
    (place.airflow_home / "migrated").write_text(version("apache-airflow"))
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(up, Stack(place))
        eventually(lambda: any(s.name == "airflow-api" and s.state == "RUNNING" for s in supervisor.states()))
        assert down(Stack(place)) == 0
        assert starting.result(300) == 0
    assert "The stack was stopped while it started" in capsys.readouterr().out


def test_every_program_listens_on_this_machine_only(place: Place) -> None:
    for program in programs(place):
        command = " ".join(program.command)
        assert "0.0.0.0" not in command
        if "--port" in program.command:
            assert program.command[program.command.index("--host") + 1] == "127.0.0.1"


def test_the_environment_is_the_stacks_own(place: Place) -> None:
    base = {"PATH": "/bin", "AIRFLOW_HOME": "/theirs", "MLFLOW_TRACKING_URI": "theirs", "HOME": "/home/me"}
    elsewhere = Place(place.home, place.landing, Ports(18080, 15000, 13000))
    made = environment(elsewhere, Credentials("p", "a", "j", "f"), "airflow-api", base)
    assert made["AIRFLOW_HOME"] == str(place.airflow_home)
    assert "MLFLOW_TRACKING_URI" not in made
    assert made["HOME"] == "/home/me"
    assert made["CT_TRACKING_URI"] == "http://127.0.0.1:15000"
    assert made["CT_SERVING_URLS"] == "http://127.0.0.1:13000"
    assert made["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18080/execution/"


#: Secret → the programs that have it in their environment. A CT_* variable of the shell stands for a key of a service.
HAVE = {
    "jwt": {"airflow-api", "airflow-scheduler"},
    "api-secret": {"airflow-api"},
    "fernet": {"airflow-api", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"},
    "key-of-serving": {
        *("steps", "serving", "airflow-api", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
    },
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_running_program_has_its_own_secrets_only(place: Place, supervisor: Supervisor) -> None:
    secrets = Credentials("password", "api-secret", "jwt", "fernet")
    base = dict(os.environ) | {"CT_SERVING_API_KEY": "key-of-serving"}
    names = [program.name for program in programs(place)]
    environments = {name: environment(place, secrets, name, base) for name in names}
    supervisor.boot([waiting(place, name) for name in names], environments)
    supervisor.start(*names)
    pids(place, len(names))
    seen = {state.name: Path(f"/proc/{state.pid}/environ").read_text() for state in supervisor.states()}
    # A child inherits what its program has, as a step does that the step server forks.
    [child] = psutil.Process(next(state.pid for state in supervisor.states() if state.name == "steps")).children()
    assert not [value for value in child.environ().values() if value in ("jwt", "api-secret", "fernet")]
    for secret, programs_with_it in HAVE.items():
        assert {name for name, text in seen.items() if f"={secret}\0" in text} == programs_with_it, secret
    daemon = Path(f"/proc/{(place.run / 'supervisord.pid').read_text().strip()}/environ").read_text()
    assert not [secret for secret in HAVE if f"={secret}\0" in daemon]


def test_nobody_else_can_look_into_the_state(place: Place, supervisor: Supervisor) -> None:
    place.home.mkdir(mode=0o755)
    supervisor.boot([waiting(place)], env(place))
    assert stat.S_IMODE(place.home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in place.environments.iterdir()} == {0o600}


def test_secrets_are_kept_private_and_stay_the_same(place: Place) -> None:
    first = Credentials.kept_in(place.home)
    path = place.home / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Credentials.kept_in(place.home) == first
    assert len(first.jwt_secret) >= 64
    assert first.password not in repr(first)
    first.write_passwords_file(place.airflow_home / "passwords.json")
    assert json.loads((place.airflow_home / "passwords.json").read_text()) == {"admin": first.password}
    assert first.jwt_secret not in configuration(place, programs(place))


def test_two_places_have_different_secrets(tmp_path: Path) -> None:
    assert Credentials.kept_in(tmp_path / "a").password != Credentials.kept_in(tmp_path / "b").password


def test_a_stack_is_found_again_with_the_ports_that_it_was_started_with(place: Place) -> None:
    place.run.mkdir(parents=True)
    started = Place(place.home, Path("/theirs"), Ports(1, 2, 3))
    started.remember()
    assert place.as_started() == started
