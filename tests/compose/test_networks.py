"""The networks of docker-compose.yaml in a real engine: who reaches whom. Stand-ins for the services only listen."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.compose.composed_stack import compose, engine, write_env
from training.settings import ROOT

pytestmark = [pytest.mark.long, pytest.mark.docker]

IMAGE, PORT = "python:3.11-slim-bookworm", 8000
NAMES = ["postgres", "redis", "mlflow", "steps", "serving", "airflow-api", "demo", "prometheus", "grafana"]
NETWORKS: dict[str, set[str]] = {
    name: set(service["networks"])
    for name, service in yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"].items()
}
#: Prints which of the services that the arguments name take a connection.
REACHED = f"""
import socket, sys
for name in sys.argv[1:]:
    try:
        socket.create_connection((name, {PORT}), timeout=3).close()
        print(name)
    except OSError:
        pass
"""
HEALTHY = ["CMD", "python", "-c", f"import socket; socket.create_connection(('127.0.0.1', {PORT}))"]
LISTEN = ["python", "-m", "http.server", str(PORT)]


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """Service → those that take a connection from it."""
    if why := engine():
        pytest.skip(f"No Docker engine: {why}")
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
        pytest.skip(f"There is no image {IMAGE}")
    folder = tmp_path_factory.mktemp("networks")
    more = folder / "stand-ins.yaml"
    more.write_text("services:\n" + "".join(_stand_in(name) for name in NAMES))
    env, name = write_env(folder), f"perennial-networks-{os.getpid()}"

    def run(*arguments: str) -> str:
        done = compose(env, "--profile", "*", *arguments, name=name, more=[more])
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    try:
        run("up", "--detach", "--no-build", "--no-deps", "--wait", *NAMES)
        others = {name: [other for other in NAMES if other != name] for name in NAMES}
        with ThreadPoolExecutor(len(NAMES)) as pool:
            found = pool.map(lambda name: run("exec", "-T", name, "python", "-c", REACHED, *others[name]), NAMES)
            yield {name: set(reached.split()) for name, reached in zip(NAMES, found, strict=True)}
    finally:
        compose(env, "--profile", "*", "down", "--volumes", "--timeout", "1", name=name, more=[more])


def _stand_in(name: str) -> str:
    lines = [f"image: {IMAGE}", "entrypoint: []", f"command: {LISTEN}", "user: '0:0'", "build: !reset null"]
    lines += ["volumes: !reset []", "ports: !reset []", "depends_on: !reset {}", f"healthcheck: {{test: {HEALTHY}}}"]
    return f"  {name}:\n" + "".join(f"    {line}\n" for line in lines)


def _expected(name: str) -> set[str]:
    return {other for other in NAMES if other != name and NETWORKS[name] & NETWORKS[other]}


@pytest.mark.parametrize("name", NAMES)
def test_a_service_reaches_those_with_which_it_shares_a_network(reached: dict[str, set[str]], name: str) -> None:
    assert reached[name] == _expected(name)
