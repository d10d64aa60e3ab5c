"""Talks to supervisord over its socket: starts it, starts its programs, lists them, and stops them all."""

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ProtocolError, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from local.credentials import write_private
from local.place import Place
from local.processes import Program, daemon_environment
from local.program import kill, members
from training.contract.errors import StepError
from training.settings import ROOT

DAEMON = """\
[supervisord]
logfile = {run}/supervisord.log
logfile_maxbytes = 5MB
logfile_backups = 1
pidfile = {run}/supervisord.pid
directory = {root}
[unix_http_server]
file = {socket}
chmod = 0600
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
PROGRAM = """
[program:{name}]
command = {command}
autostart = false
autorestart = true
startretries = 20
stopasgroup = true
killasgroup = true
stopwaitsecs = {patience}
redirect_stderr = true
stdout_logfile = {logs}/{name}.log
stdout_logfile_maxbytes = 20MB
stdout_logfile_backups = 1
"""
#: What a call raises when supervisord does not run, is ending, or ends while it answers.
UNREACHABLE = (OSError, HTTPException, Fault, ProtocolError)


@dataclass(frozen=True)
class State:
    """One program as the supervisor sees it: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL."""

    name: str
    state: str
    pid: int
    seconds: int


class Supervisor:
    """The supervisord of a place."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def running(self) -> bool:
        try:
            return bool(self._rpc().getState()["statename"] == "RUNNING")
        except UNREACHABLE:
            return False

    def boot(self, programs: list[Program], environments: Mapping[str, Mapping[str, str]]) -> None:
        """Start supervisord, which knows `programs` but starts none. First end the processes that a crashed stack left.

        `environments` has the environment of each program, by name. Raises StepError when supervisord does not start.
        """
        place = self._place
        self.end_leftovers()
        place.make_private()
        for folder in (place.run, place.logs, place.environments):
            folder.mkdir(parents=True, exist_ok=True)
        for program in programs:
            write_private(environment_file(place, program.name), dict(environments[program.name]))
        place.socket.unlink(missing_ok=True)
        place.stopped.unlink(missing_ok=True)
        config = place.run / "supervisord.conf"
        config.write_text(configuration(place, programs))
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
        done = subprocess.run(command, env=daemon_environment(place), cwd=ROOT, capture_output=True, text=True)
        deadline = time.monotonic() + 20
        while done.returncode == 0 and not self.running and time.monotonic() < deadline:
            time.sleep(0.1)
        if not self.running:
            output = (done.stdout + done.stderr).strip() or "(none)"
            raise StepError(
                f"supervisord did not start. Its output: {output}", hint=f"See {place.run}/supervisord.log."
            )

    @property
    def stopped(self) -> bool:
        """Whether `shutdown` was called since the last boot, by this process or another one."""
        return self._place.stopped.exists() or not self._place.run.exists()

    def end_leftovers(self) -> None:
        """End the processes of a stack whose supervisord is gone. They would still use the ports."""
        if not self.running:
            kill(members(str(self._place.home)))

    def start(self, *names: str) -> None:
        """Start the programs `names`, unless they run."""
        for state in self.states():
            if state.name in names and state.state not in ("RUNNING", "STARTING", "BACKOFF"):
                self._rpc().startProcess(state.name, False)

    def states(self) -> list[State]:
        """The state of every program. Empty when supervisord does not run."""
        try:
            found: Any = self._rpc().getAllProcessInfo()
        except UNREACHABLE:
            return []
        return [
            State(p["name"], p["statename"], p["pid"], max(0, p["now"] - p["start"]) if p["pid"] else 0) for p in found
        ]

    def shutdown(self) -> None:
        """Stop every program in order, then supervisord, then kill the processes that are left."""
        if self._place.run.exists():
            self._place.stopped.touch()
        daemon = self._daemon()
        children = daemon.children(recursive=True) if daemon else []
        # Somebody else may stop it at the same time.
        with suppress(*UNREACHABLE):
            # shutdown() alone would stop one program after the other.
            self._rpc().stopAllProcesses(True)
            self._rpc().shutdown()
        if daemon:
            psutil.wait_procs([daemon], timeout=45)
        kill([p for p in children if p.is_running()] + members(str(self._place.home)))
        self._place.socket.unlink(missing_ok=True)
        (self._place.run / "supervisord.pid").unlink(missing_ok=True)

    def _daemon(self) -> psutil.Process | None:
        try:
            return psutil.Process(self._rpc().getPID()) if self.running else None
        except psutil.NoSuchProcess:
            return None

    def _rpc(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._place.socket}")
        return ServerProxy("http://127.0.0.1", transport=transport).supervisor


def configuration(place: Place, programs: list[Program]) -> str:
    """The content of supervisord.conf. It has no secrets: each program reads its environment from a file of its own."""
    parts = [DAEMON.format(run=_raw(place.run), root=_raw(ROOT), socket=_raw(place.socket))]
    # supervisord expands this value twice, and all others once.
    logs = _raw(_raw(place.logs))
    for program in programs:
        wrapper = [sys.executable, "-m", "local.program", program.name, str(environment_file(place, program.name))]
        command = shlex.join([*wrapper, "--", *program.command])
        parts.append(PROGRAM.format(name=program.name, command=_raw(command), patience=program.patience, logs=logs))
    return "".join(parts)


def environment_file(place: Place, program: str) -> Path:
    return place.environments / f"{program.replace(':', '_')}.json"


def _raw(value: object) -> str:
    """Escape `%`, which supervisord's configuration expands."""
    return str(value).replace("%", "%%")
