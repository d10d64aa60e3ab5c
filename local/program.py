"""`python -m local.program <name> -- <command>`: what the supervisor runs for each program.

A program killed by its pid leaves its workers behind: they hold its port, or take tasks from a queue that nobody fills.
So before a program starts, what an earlier one of the same name left is ended. Then this process becomes the program.
"""

import os
import sys

import psutil

#: In the environment of everything that a stack starts: its state folder.
MARK = "PERENNIAL_STACK"
#: Set by supervisord in each of its programs.
NAME = "SUPERVISOR_PROCESS_NAME"


def members(home: str, program: str | None = None) -> list[psutil.Process]:
    """The processes of the stack in `home` (of one program of it), children included; this process is not counted."""
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
    """End them at once and wait until they are gone. psutil compares start times: a reused pid is not hit."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


def main(argv: list[str]) -> None:
    name, _, *command = argv
    left = [p for p in members(os.environ[MARK], name) if p.pid != os.getppid()]
    if left:
        print(f"Ending what an earlier {name} left: {[p.pid for p in left]}", flush=True)
        kill(left)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
