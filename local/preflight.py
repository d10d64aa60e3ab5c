"""Checks what the stack needs before it starts: Python, disk space, memory, ports."""

import shutil
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import psutil

from local.place import HOST, Place

GB = 1024**3
#: A finished demo takes about half of this, without the Python environment.
LEAST_DISK = 2 * GB
#: For all processes of the stack and one training step.
LEAST_MEMORY = 3 * GB


def problems(place: Place) -> list[str]:
    """The reasons why the stack could not start here."""
    found = [python_problem(sys.version_info[:2]), disk_problem(place.home), memory_problem()]
    found += [port_problem(name, port) for name, port in asdict(place.ports).items()]
    return [problem for problem in found if problem]


def python_problem(version: tuple[int, ...]) -> str | None:
    if (3, 11) <= version < (3, 13):
        return None
    return (
        f"This is Python {'.'.join(map(str, version))}; Perennial needs 3.11 or 3.12. Choose one: make setup PYTHON=…"
    )


def disk_problem(home: Path, least: int = LEAST_DISK) -> str | None:
    folder = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if free >= least:
        return None
    return (
        f"Only {free / GB:.1f} GB are free at {folder}; {least / GB:.0f} GB are needed. "
        "Free some, or put the state elsewhere: make … STATE=/other/disk/perennial"
    )


def memory_problem(least: int = LEAST_MEMORY) -> str | None:
    free = psutil.virtual_memory().available
    if free >= least:
        return None
    return f"Only {free / GB:.1f} GB of memory are free; the stack needs {least / GB:.0f} GB. Close other programs."


def port_problem(name: str, port: int) -> str | None:
    """Whether the program could listen on `port`. It is bound as the program would, on the same address only."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return f"Port {port} needs more rights than you have. Choose another: make … {name.upper()}_PORT=…"
        except OSError:
            return (
                f"Port {port} is in use by {_holder(port)}. Stop that, or choose another: make … {name.upper()}_PORT=…"
            )
    return None


def _holder(port: int) -> str:
    try:
        pids = {c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr[1] == port and c.status == "LISTEN"}
        pid = next(pid for pid in pids if pid)
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except (psutil.Error, StopIteration):
        return "a program of another user"
