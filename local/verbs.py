"""What each verb does with a stack. Each returns the exit code."""

import os
import shutil
import sys
import time

from local.credentials import USER
from local.preflight import problems
from local.stack import Stack, StackStoppedError
from training.contract.errors import InputError

#: What a stack puts into its state folder.
KEPT = frozenset(
    [
        "airflow",
        "bentoml",
        "credentials.json",
        "feast",
        "lake",
        "landing",
        "ledger",
        "logs",
        "mlflow",
        "run",
        "serving",
        "work",
    ]
)


def ready_to_start(stack: Stack) -> bool:
    """False, with the reasons printed, when the stack cannot start here. One that runs already is ready."""
    if stack.running:
        kept = stack.place.as_started()
        if kept == stack.place:
            return True
        asked, has = stack.place, kept
        print(f"✗ A stack with other settings runs in {asked.home}:", file=sys.stderr)
        print(f"    running: {has.ports}, landing {has.landing}", file=sys.stderr)
        print(f"    asked:   {asked.ports}, landing {asked.landing}", file=sys.stderr)
        print("  → make down, then again; or give the same settings.", file=sys.stderr)
        return False
    stack.supervisor.clear_away()
    found = problems(stack.place)
    for problem in found:
        print(f"✗ {problem}", file=sys.stderr)
    return not found


def addresses(stack: Stack) -> str:
    """URLs and login, for a person."""
    place = stack.place
    return (
        f"  Airflow  {place.airflow_url}   login {USER} / {stack.credentials.password}\n"
        f"  MLflow   {place.mlflow_url}\n"
        f"  Serving  {place.serving_url}\n"
        f"  Landing  {place.landing}/<model>/<feed>/<day>.parquet"
    )


def up(stack: Stack) -> int:
    if not ready_to_start(stack):
        return 1
    started = time.monotonic()
    try:
        stack.start(lambda text: print(f"… {text}", flush=True))
    except StackStoppedError:
        print("The stack was stopped while it started. `make up` starts it again.")
        return 0
    print(f"The stack is up and healthy after {time.monotonic() - started:.0f} s. `make down` stops it.")
    print(addresses(stack))
    return 0


def down(stack: Stack) -> int:
    was_running = stack.running
    stack.stop()
    print("Stopped." if was_running else "Nothing ran.")
    return 0


def status(stack: Stack) -> int:
    """Exit code 0 when all of it is healthy."""
    stack = Stack(stack.place.as_started())
    states = stack.supervisor.states()
    if not states:
        print(f"Nothing runs in {stack.place.home}. `make up` or `make demo` starts the stack.")
        return 1
    health = stack.health()
    for program in states:
        well = "healthy" if health[program.name] else "NOT WELL"
        log = stack.place.logs / f"{program.name}.log"
        print(f"  {program.name:<22} {program.state:<9} {well:<9} {program.seconds:>6} s  pid {program.pid:<7} {log}")
    print(f"  Memory of all processes {stack.memory() / 1024**3:.1f} GB")
    print(addresses(stack))
    return 0 if all(health.values()) else 1


def clean(stack: Stack) -> int:
    """Deletes what a stack made, and no other folder. Raises InputError for one that does not look like a stack's."""
    home = stack.place.home
    stack.stop()
    if not home.exists():
        print(f"There is no {home}.")
        return 0
    if strange := sorted(entry.name for entry in home.iterdir() if entry.name not in KEPT):
        problem = f"{home} holds what no stack puts there: {', '.join(strange[:5])}"
        raise InputError(problem, hint="Is it the folder that you mean? Nothing was deleted.")
    shutil.rmtree(home)
    print(f"Deleted {home}.")
    return 0


def step(stack: Stack, rest: list[str]) -> int:
    """Becomes the step."""
    return _become(stack, "training", *rest)


def ledger_verify(stack: Stack, models: list[str]) -> int:
    """Becomes the check of the ledgers of `models`, or of all."""
    return _become(stack, "training.ledger_verify", *models)


def _become(stack: Stack, module: str, *arguments: str) -> int:
    environment = os.environ | stack.place.as_started().step_environment
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


VERBS = {
    "up": (up, "start the stack, return when it is healthy"),
    "down": (down, "stop it"),
    "status": (status, "what runs"),
    "clean": (clean, "stop it and delete its state"),
}
