"""`make demo`: starts the stack, runs the scenario, prints its timeline."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from local import timeline
from local.airflow_api import Airflow
from local.credentials import USER
from local.plans import Plan
from local.progress import Progress
from local.scenario import Scenario
from local.stack import Stack, StackStoppedError
from local.summary import print_summary
from local.traffic import Serving
from local.verbs import addresses, ready_to_start
from training.contract.errors import StepError
from training.settings import load_settings

GB = 1024**3


def demo(stack: Stack, plan: Plan, ends: bool) -> int:
    """Returns 0 when the whole scenario happened. Without `ends` the stack stays up until Ctrl-C."""
    if not ready_to_start(stack):
        return 1
    with _interruptible():
        try:
            complete = _run(stack, plan)
            if not ends:
                print("\nThe stack stays up. Ctrl-C stops it; `make demo` starts it again.", flush=True)
                threading.Event().wait()
        except StackStoppedError:
            print("\nThe stack was stopped while it started. `make demo` continues from here.", flush=True)
            complete = False
        except StepError as error:
            print(f"\n✗ {error}", flush=True)
            print(f"  The logs of all programs are in {stack.place.logs}.", flush=True)
            complete = False
        except KeyboardInterrupt:
            complete = False
            print("\nStopping. Nothing is lost: `make demo` continues from here.", flush=True)
        finally:
            stack.stop()
    return 0 if complete else 1


def _run(stack: Stack, plan: Plan) -> bool:
    place, memory = stack.place, _Memory(stack)
    with Progress() as progress, _airflow(stack, plan) as airflow:
        serving = Serving(place.serving_url, plan.model, api_key=load_settings().serving_api_key)
        scenario = Scenario(plan, place.landing, airflow, serving, progress)
        scenario.on_tick = memory.measure
        scenario.prepare()
        progress.say("The stack already runs." if stack.running else f"Starting the stack in {place.home}")
        stack.start(progress.now)
        progress.say(f"The stack is up, {stack.memory() / GB:.1f} GB.\n{addresses(stack)}")
        memory.measure()
        if scenario.retrained():
            progress.say("The demo has run here before. To run it again from the start: `make clean`.")
        scenario.run()
        champion = serving.champion()
        entries = timeline.entries(airflow)
        progress.say(f"The scenario is over. Peak memory of all processes: {memory.peak / GB:.1f} GB.")
    logs = f"{place.airflow_home}/logs, and {place.airflow_url} while the stack runs."
    complete = print_summary(plan, entries, champion, logs)
    print(f"\n{addresses(stack)}", flush=True)
    return complete


def _airflow(stack: Stack, plan: Plan) -> Airflow:
    return Airflow(stack.place.airflow_url, USER, stack.credentials.password, plan.source, plan.model)


class _Memory:
    """The largest memory of all processes so far. It reads /proc at every tenth tick, because that takes long."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._ticks, self.peak = stack, 0, 0

    def measure(self) -> None:
        if self._ticks % 10 == 0:
            self.peak = max(self.peak, self._stack.memory())
        self._ticks += 1


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: with the stack stopped."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
