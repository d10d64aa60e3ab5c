"""The commands of `python -m local` on a stack. Each returns its exit code."""

import json
import os
import shutil
import sys
import time

from local.credentials import USER
from local.preflight import problems
from local.stack import Stack, StackStoppedError
from local.traffic import served_models
from training.contract.errors import InputError
from training.settings import load_settings

#: The names of files and folders in a stack's state folder.
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
    """Whether the stack can start here, or already runs. Prints the reasons when not."""
    if stack.running:
        kept = stack.place.as_started()
        if kept == stack.place:
            return True
        wanted = stack.place
        print(f"✗ A stack with other settings runs in {wanted.home}:", file=sys.stderr)
        print(f"    running: {kept.ports}, landing {kept.landing}", file=sys.stderr)
        print(f"    wanted:  {wanted.ports}, landing {wanted.landing}", file=sys.stderr)
        print("  → Run `make down` first, or give the same settings.", file=sys.stderr)
        return False
    stack.supervisor.end_leftovers()
    found = problems(stack.place)
    for problem in found:
        print(f"✗ {problem}", file=sys.stderr)
    return not found


def addresses(stack: Stack) -> str:
    """The URLs and the login, as text."""
    place = stack.place
    return (
        f"  Airflow  {place.airflow_url}   login {USER} / {stack.credentials.password}\n"
        f"  MLflow   {place.mlflow_url}\n"
        f"  Serving  {place.serving_url}\n"
        f"  Landing  {place.landing}/<source>/<feed>/<day>.parquet"
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
    print("Stopped." if was_running else "The stack did not run.")
    return 0


def status(stack: Stack) -> int:
    """Print the state of every program and the champion of every model. Exit code 0 when all are healthy."""
    stack = Stack(stack.place.as_started())
    states = stack.supervisor.states()
    if not states:
        print(f"Nothing runs in {stack.place.home}. `make up` or `make demo` starts the stack.")
        return 1
    health = stack.health()
    for program in states:
        well = "healthy" if health[program.name] else "UNHEALTHY"
        log = stack.place.logs / f"{program.name}.log"
        print(f"  {program.name:<22} {program.state:<9} {well:<9} {program.seconds:>6} s  pid {program.pid:<7} {log}")
    print(f"  Memory of all processes {stack.memory() / 1024**3:.1f} GB")
    print("\n".join(champions(stack)))
    print(addresses(stack))
    return 0 if all(health.values()) else 1


def champions(stack: Stack) -> list[str]:
    """A line per model: the version that the prediction service serves, or why there is none."""
    served = served_models(stack.place.serving_url, load_settings().serving_api_key)
    if served is None:
        return ["  The prediction service does not say which models it serves"]
    lines = []
    for name, model in sorted(served.models.items()):
        champion, problem = model.champion, model.problem or model.spec_problem
        if champion is None:
            lines.append(f"  {name:<22} no champion{f': {problem}' if problem else ''}")
        else:
            serves = f"version {champion.version} serves since {champion.since:%Y-%m-%d %H:%M:%S} UTC"
            lines.append(f"  {name:<22} {serves}{f' ({problem})' if problem else ''}")
    return lines + [f"  {name:<22} not served: {why}" for name, why in sorted(served.not_served.items())]


def clean(stack: Stack) -> int:
    """Delete a stack's state folder. Raises InputError, and deletes nothing, when the folder has other content."""
    home = stack.place.home
    stack.stop()
    if not home.exists():
        print(f"There is no {home}.")
        return 0
    if strange := sorted(entry.name for entry in home.iterdir() if entry.name not in KEPT):
        problem = f"{home} has content that is not a stack's: {', '.join(strange[:5])}"
        raise InputError(problem, hint="Nothing was deleted. Check that this is the right folder.")
    shutil.rmtree(home)
    print(f"Deleted {home}.")
    return 0


def step(stack: Stack, rest: list[str]) -> int:
    """Run the step in this process."""
    return _replace_process(stack, "training", *rest)


def onboard(stack: Stack, rest: list[str]) -> int:
    """Write or remove the files of a source or a model, in this process."""
    return _replace_process(stack, "training.onboarding", *rest)


def ledger_verify(stack: Stack, models: list[str]) -> int:
    """Check the ledgers of `models`, or of all, in this process."""
    return _replace_process(stack, "training.ledger_verify", *models)


def verify(stack: Stack) -> int:
    """Check that ledgers, versions and lake are unchanged, in this process."""
    return _replace_process(stack, "training.verify")


def evidence(stack: Stack, model: str, version: str) -> int:
    """Fetch the evidence of a version of `model`, in this process. Empty: of the champion."""
    return _replace_process(stack, "training.evidence_page", model, *filter(None, [version]))


def forget(stack: Stack, source: str, entity: str, dry_run: bool) -> int:
    """Remove the rows of a person, in this process."""
    inputs = json.dumps({"source": source, "entity": entity, "dry_run": dry_run})
    return _replace_process(stack, "training", "forget", "--inputs", inputs)


def sign(stack: Stack, model: str, versions: list[str]) -> int:
    """Sign versions of `model`, in this process. Empty: those with an alias."""
    return _replace_process(stack, "training.sign", model, *versions)


def restore_online(stack: Stack, sources: list[str]) -> int:
    """Fill the online store again with the rows of `sources`, or of all, in this process. The stack may run."""
    return _replace_process(stack, "training.restore_online", *sources)


def migrate(stack: Stack, apply: bool) -> int:
    """Bring specs and state to the layout of this version, in this process. Raises InputError while the stack runs."""
    if apply and stack.running:
        raise InputError("The stack runs and uses this state", hint="Run `make down` first.")
    return _replace_process(stack, "training.migrate", *(["--apply"] if apply else []))


def backup(stack: Stack, verb: str, name: str) -> int:
    """Make, check or restore a backup, in this process. Raises InputError for a restore while the stack runs."""
    if verb == "restore" and stack.running:
        raise InputError("The stack runs and uses this state", hint="Run `make down` first.")
    return _replace_process(stack, "training.backup", verb, *([name] if name else []))


def _replace_process(stack: Stack, module: str, *arguments: str) -> int:
    environment = os.environ | stack.place.as_started().step_environment
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


VERBS = {
    "up": (up, "start the stack, return when it is healthy"),
    "down": (down, "stop it"),
    "status": (status, "what runs, and the champion of each model"),
    "verify": (verify, "check that ledgers, versions and lake are unchanged"),
    "clean": (clean, "stop it and delete its state"),
}
