"""`python -m local.program <name> <environment> -- <command>`: the supervisor runs this for each program.

When a program is killed its workers may live on. They keep its port, or wait for tasks that never come. So this first
ends all processes that an earlier program of the same name left. Then it becomes the program (exec), with the
environment that is written for this program alone: supervisord's own, which it starts with, has no secrets.
"""

import json
import os
import sys
from pathlib import Path

import psutil

#: An environment variable of all processes of a stack: its state folder.
MARK = "PERENNIAL_STACK"
#: Set by supervisord in each of its programs.
NAME = "SUPERVISOR_PROCESS_NAME"


def members(home: str, program: str | None = None) -> list[psutil.Process]:
    """The processes of the stack in `home`, or of one of its programs, with their children but without this process."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get(MARK) == home and program in (None, environment.get(NAME)):
                found |= {p.pid: p for p in (process, *process.children(recursive=True))}
        except psutil.Error:
            continue
    return [process for pid, process in found.items() if pid != os.getpid()]


def kill(processes: list[psutil.Process]) -> None:
    """Kill `processes` and wait until they are gone. psutil compares start times, so a reused pid is safe."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


def main(argv: list[str]) -> None:
    name, environment, _, *command = argv
    left = [p for p in members(os.environ[MARK], name) if p.pid != os.getppid()]
    if left:
        print(f"Killing processes that an earlier {name} left: {[p.pid for p in left]}", flush=True)
        kill(left)
    own = json.loads(Path(environment).read_text())
    os.execvpe(command[0], command, own | {NAME: os.environ.get(NAME, name)})


if __name__ == "__main__":
    main(sys.argv[1:])
