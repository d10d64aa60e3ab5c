"""The programs of the stack: their commands and their environment."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.credentials import USER, Credentials
from local.place import HOST, Place
from local.program import MARK
from training.settings import ROOT, SIGNING

BIN = Path(sys.executable).parent
#: The name of the step server, which runs on Linux only.
STEPS = "steps"
#: Prefixes of variables that the stack does not take from the user's shell.
FOREIGN = ("AIRFLOW", "MLFLOW_", "BENTOML_", "SUPERVISOR_", "PYTHON")


@dataclass(frozen=True)
class Program:
    """One process that the supervisor keeps alive."""

    name: str
    command: list[str]
    #: Seconds between SIGTERM and SIGKILL.
    patience: int = 10


def programs(place: Place) -> list[Program]:
    """All programs, in the order of their starts."""
    airflow, python = str(BIN / "airflow"), sys.executable
    return [
        mlflow_server(place),
        *_step_server(place),
        Program(
            "serving",
            [
                *(python, "-m", "bentoml", "serve", "serving.service:Service", "--working-dir", str(ROOT)),
                *("--host", HOST, "--port", str(place.ports.serving)),
            ],
        ),
        Program("airflow-api", [airflow, "api-server", "--host", HOST, "--port", str(place.ports.airflow)]),
        # Without --skip-serve-logs these two open log servers on all interfaces.
        Program("airflow-scheduler", [airflow, "scheduler", "--skip-serve-logs"], patience=30),
        Program("airflow-dag-processor", [airflow, "dag-processor"]),
        Program("airflow-triggerer", [airflow, "triggerer", "--skip-serve-logs"]),
    ]


def mlflow_server(place: Place) -> Program:
    mlflow = place.home / "mlflow"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(place.ports.mlflow)),
        *("--backend-store-uri", f"sqlite:///{mlflow}/mlflow.db", "--workers", "1"),
        *("--serve-artifacts", "--artifacts-destination", str(mlflow / "artifacts")),
        *("--allowed-hosts", f"{HOST}:{place.ports.mlflow},localhost:{place.ports.mlflow}"),
    ]
    return Program("mlflow", command)


def _step_server(place: Place) -> list[Program]:
    """On Linux only: on macOS a process that has loaded its frameworks must not be forked."""
    if sys.platform != "linux":
        return []
    command = [sys.executable, "-m", "training.forkserver", "--socket", str(place.step_server)]
    return [Program(STEPS, command, patience=30)]


def environment(
    place: Place, credentials: Credentials, program: str, base: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment of the program `program`: `base` without other tools' settings, and what this program needs.

    Each secret is in the environments of those programs only that use it. The `CT_*` variables of `base` may hold
    credentials. They are the steps', serving's and Airflow's.
    """
    kept = daemon_environment(place, base)
    if program == "mlflow":
        # Background jobs of MLflow's GenAI features: processes that nothing here uses.
        return kept | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    kept |= {name: value for name, value in base.items() if name.startswith("CT_")} | place.step_environment
    if program.startswith("airflow-"):
        return kept | _airflow(place, credentials, program)
    if program == "serving":
        kept = {name: value for name, value in kept.items() if name not in SIGNING}
        # The days of a demo take minutes, and its monitors read the predictions of the day before.
        kept = {"CT_SERVING_SHIP_SECONDS": "2"} | kept
    return kept | {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(place.home / "bentoml")}


def daemon_environment(place: Place, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of supervisord, and the part that all programs share. It has no secrets and no settings."""
    kept = {name: value for name, value in base.items() if not name.startswith((*FOREIGN, "CT_"))}
    return kept | {
        MARK: str(place.home),
        # setproctitle must not overwrite the environment: MARK is read from /proc.
        "SPT_NOENV": "1",
        "PATH": f"{BIN}{os.pathsep}{base.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _airflow(place: Place, credentials: Credentials, program: str) -> dict[str, str]:
    home = place.airflow_home
    settings = {
        "CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        # The default is localhost:8080, whatever the API server's port is.
        "CORE__EXECUTION_API_SERVER_URL": f"{place.airflow_url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "CORE__FERNET_KEY": credentials.fernet_key,
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "API__HOST": HOST,
        "API__PORT": str(place.ports.airflow),
        "API__BASE_URL": place.airflow_url,
    }
    # The scheduler signs the tokens of tasks, the API server checks them and signs those of people.
    if program in ("airflow-api", "airflow-scheduler"):
        settings["API_AUTH__JWT_SECRET"] = credentials.jwt_secret
    if program == "airflow-api":
        settings["API__SECRET_KEY"] = credentials.api_secret
    ours = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    return {"AIRFLOW_HOME": str(home)} | airflow_everywhere() | ours


def airflow_everywhere() -> dict[str, str]:
    """Airflow's settings that docker compose uses, too."""
    lines = (ROOT / "deploy" / "airflow.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
