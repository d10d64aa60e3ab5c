"""A composed stack under a name, with ports, secrets and volumes of its own."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from local.airflow_api import Airflow
from testing.ports import free_ports
from testing.reference_models import SOURCES
from training.settings import ROOT

TAG = "test"
#: Where the images have the model specs.
MODELS = "/app/training/models"
#: The services that go on, and the ones that end.
RUNNING = {
    *("postgres", "redis", "mlflow", "steps", "serving"),
    *("airflow-api", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"),
}
ONCE = {"mlflow-init", "feast-init", "airflow-init"}


def engine() -> str | None:
    """Why there is nothing to run containers with; None: there is."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"`{' '.join(command)}` fails: {done.stderr.strip().splitlines()[-1:]}"
    return None


def write_env(folder: Path, **values: Any) -> Path:
    """A .env as `make env` writes it, with `values` in the place of the example's."""
    shutil.copy(ROOT / ".env.example", folder)
    subprocess.run(["sh", str(ROOT / "deploy" / "env.sh")], cwd=folder, check=True, capture_output=True)
    path = folder / ".env"
    lines = [line for line in path.read_text().splitlines() if line.split("=")[0] not in values]
    path.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in values.items()), ""]))
    return path


def compose(
    env: Path, *arguments: str, name: str = "perennial-test", more: Iterable[Path] = ()
) -> subprocess.CompletedProcess[str]:
    """`docker compose …`; what this process's own environment says is left out. `more` files change the first one."""
    files = [argument for file in (ROOT / "docker-compose.yaml", *more) for argument in ("-f", str(file))]
    command = ["docker", "compose", "-p", name, *files, "--env-file", str(env)]
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "DOCKER_HOST")}
    return subprocess.run([*command, *arguments], env=clean, capture_output=True, text=True)


def with_models(folder: Path, models: Path) -> Path:
    """Write a Compose file that mounts `models` in the place of training/models in every service that has them."""
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    mounted = [name for name, service in services.items() if any(MODELS in each for each in service.get("volumes", []))]
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"services": {name: {"volumes": [f"{models}:{MODELS}:ro"]} for name in mounted}}))
    return path


class Composed:
    """One stack with the specs in `models`, its landing folder in `folder`, and other `settings` in its .env."""

    def __init__(self, folder: Path, models: Path, **settings: str) -> None:
        self.name = f"perennial-test-{os.getpid()}"
        self.landing = folder / "landing"
        self.landing.mkdir(mode=0o755)
        names = ("AIRFLOW_PORT", "MLFLOW_PORT", "SERVING_PORT", "SERVING_MANAGEMENT_PORT")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.more = [with_models(folder, models)]
        self.env = write_env(folder, LANDING=self.landing, TAG=TAG, **ports, **settings)
        self.airflow_url, self.mlflow_url, self.serving_url, self.management_url = (
            f"http://127.0.0.1:{port}" for port in ports.values()
        )

    def __call__(self, *arguments: str) -> str:
        done = compose(self.env, *arguments, name=self.name, more=self.more)
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def up(self) -> None:
        """Returns when everything is healthy."""
        self("up", "--detach", "--no-build")
        self.until(lambda: self.health() == dict.fromkeys(RUNNING, "healthy"), "every service to be healthy", 180)

    def health(self) -> dict[str, str]:
        """Service → its health, of those that run."""
        lines = self("ps", "--format", "{{.Service}} {{.Health}}").splitlines()
        return dict(line.split(" ", 1) for line in lines if " " in line)

    def airflow(self, model: str = "card_fraud") -> Airflow:
        password = next(v for k, v in self.settings().items() if k == "AIRFLOW_PASSWORD")
        return Airflow(self.airflow_url, "admin", password, SOURCES[model], model)

    def settings(self) -> dict[str, str]:
        lines = self.env.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def until(self, true: Callable[[], Any], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                logs = self("logs", "--tail", "15", "--no-color")
                raise AssertionError(f"Waited {seconds:.0f} s for {what}: {self.health()}\n{logs}")
            time.sleep(1)
