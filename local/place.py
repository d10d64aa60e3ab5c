"""Where a stack is: its state folder, landing folder, ports and URLs."""

import os
import random
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path
from socket import socket

from training.contract.errors import ConfigError
from training.settings import ROOT, load_settings

HOST = "127.0.0.1"
#: Below the ports that Linux gives to outgoing connections (net.ipv4.ip_local_port_range, from 32768 on).
_NEVER_OUTGOING = range(15_000, 32_768)
#: The kernel takes socket paths of up to 107 bytes, and supervisord first creates `<path>.<pid>`.
LONGEST_SOCKET = 107 - len(".4194304")


@dataclass(frozen=True)
class Ports:
    """The port of each program. Each is set by the make variable `<NAME>_PORT`."""

    airflow: int = 8080
    mlflow: int = 5000
    serving: int = 3000

    @classmethod
    def from_environment(cls) -> "Ports":
        """`AIRFLOW_PORT`, `MLFLOW_PORT`, `SERVING_PORT`. Raises ConfigError for a bad port, or one used twice."""
        found = {}
        for name, default in asdict(cls()).items():
            value = os.environ.get(f"{name.upper()}_PORT") or str(default)
            if not value.isdigit() or not 0 < int(value) < 65536:
                raise ConfigError(f"{name.upper()}_PORT is {value!r}", hint="A port is a number from 1 to 65535.")
            found[name] = int(value)
        if len(set(found.values())) < len(found):
            raise ConfigError(f"Two programs have the same port: {found}", hint="Give each program its own port.")
        return cls(**found)


@dataclass(frozen=True)
class Place:
    """The folders and URLs of a stack. All of its state is under `home`."""

    home: Path
    landing: Path
    ports: Ports

    @classmethod
    def from_environment(cls) -> "Place":
        """From the settings and the ports of this environment. Raises ConfigError."""
        settings = load_settings()
        place = cls(settings.home, Path(settings.landing).absolute(), Ports.from_environment())
        if len(os.fsencode(place.socket)) > LONGEST_SOCKET:
            hint = f"Choose a shorter state folder: make … STATE=/some/short/path (now {place.home})."
            raise ConfigError(f"The path of the supervisor's socket is too long: {place.socket}", hint=hint)
        return place

    def as_started(self) -> "Place":
        """The place as it was when the stack in `home` started, so that `down` and `status` need no ports."""
        try:
            kept = loads(self.record.read_text())
        except (OSError, ValueError):
            return self
        return Place(self.home, Path(kept["landing"]), Ports(**kept["ports"]))

    def remember(self) -> None:
        self.record.write_text(dumps({"landing": str(self.landing), "ports": asdict(self.ports)}))

    @property
    def record(self) -> Path:
        return self.run / "stack.json"

    @property
    def run(self) -> Path:
        """Sockets, pids and configuration of the running stack."""
        return self.home / "run"

    @property
    def environments(self) -> Path:
        """The environment of each program, as JSON. They have secrets."""
        return self.run / "environments"

    def make_private(self) -> None:
        """Create the state folder, or take it from others: only its owner may look into it."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)

    @property
    def logs(self) -> Path:
        """One log per program."""
        return self.home / "logs"

    @property
    def socket(self) -> Path:
        return self.run / "supervisor.sock"

    @property
    def stopped(self) -> Path:
        """A file that exists from the time somebody stops the stack until its next start."""
        return self.run / "stopped"

    @property
    def step_server(self) -> Path:
        return self.run / "steps.sock"

    @property
    def airflow_home(self) -> Path:
        return self.home / "airflow"

    @property
    def airflow_url(self) -> str:
        return f"http://{HOST}:{self.ports.airflow}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{HOST}:{self.ports.mlflow}"

    @property
    def serving_url(self) -> str:
        return f"http://{HOST}:{self.ports.serving}"

    @property
    def step_environment(self) -> dict[str, str]:
        """The `CT_*` variables with which the stack's steps and prediction service find each other."""
        return {
            "CT_HOME": str(self.home),
            "CT_LANDING_URI": str(self.landing),
            "CT_TRACKING_URI": self.mlflow_url,
            "CT_SERVING_URLS": self.serving_url,
            "CT_LAUNCHER": "forkserver" if sys.platform == "linux" else "subprocess",
            "CT_FORKSERVER_SOCKET": str(self.step_server),
            "PYTHONPATH": str(ROOT),
        }


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens. The system gives none of them to the outgoing connections of other programs, so
    that they are still free a moment later."""
    found: list[int] = []
    for port in random.sample(_NEVER_OUTGOING, len(_NEVER_OUTGOING)):
        with socket() as one, suppress(OSError):
            one.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"Fewer than {count} ports are free on {HOST}")
