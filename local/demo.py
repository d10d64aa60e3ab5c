"""`make demo`: starts the stack, tells the story, ends with its timeline."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from local import timeline
from local.airflow_api import Airflow
from local.credentials import USER
from local.ending import told
from local.plan import Plan
from local.progress import Progress
from local.stack import Stack, StackStoppedError
from local.story import Story
from local.traffic import Serving
from local.verbs import addresses, ready_to_start
from training.contract.errors import StepError
from training.settings import load_settings

GB = 1024**3


def demo(stack: Stack, ends: bool, plan: Plan | None = None) -> int:
    """Returns 0 when the whole story happened. Unless it `ends` by itself, the stack stays up until Ctrl-C."""
    plan = plan or Plan()
    if not ready_to_start(stack):
        return 1
    with _interruptible():
        try:
            complete = _tell(stack, plan)
            if not ends:
                print("\nThe stack stays up; look around. Ctrl-C stops it, `make demo` takes it up again.", flush=True)
                threading.Event().wait()
        except StackStoppedError:
            print("\nThe stack was stopped while it started. `make demo` goes on from here.", flush=True)
            complete = False
        except StepError as error:
            print(f"\n✗ {error}", flush=True)
            print(f"  The logs of all programs are in {stack.place.logs}.", flush=True)
            complete = False
        except KeyboardInterrupt:
            complete = False
            print("\nStopping. Nothing is lost: `make demo` goes on from here.", flush=True)
        finally:
            stack.stop()
    return 0 if complete else 1


def _tell(stack: Stack, plan: Plan) -> bool:
    place, memory = stack.place, _Memory(stack)
    with Progress() as progress, _airflow(stack, plan) as airflow:
        serving = Serving(place.serving_url, api_key=load_settings().serving_api_key)
        story = Story(plan, place.landing, airflow, serving, progress)
        story.on_tick = memory.look
        story.prepare()
        progress.say("The stack runs already." if stack.running else f"Starting the stack in {place.home}")
        stack.start(progress.now)
        progress.say(f"The stack is up, {stack.memory() / GB:.1f} GB.\n{addresses(stack)}")
        memory.look()
        if story.retrained():
            progress.say("The story was told here before. `make clean` and it can be told anew.")
        story.tell()
        champion = serving.champion()
        chapters = timeline.chapters(airflow)
        progress.say(f"The story is told. Peak memory of all processes: {memory.peak / GB:.1f} GB.")
    complete = told(chapters, champion, f"{place.airflow_home}/logs, and {place.airflow_url} while the stack runs.")
    print(f"\n{addresses(stack)}", flush=True)
    return complete


def _airflow(stack: Stack, plan: Plan) -> Airflow:
    return Airflow(stack.place.airflow_url, USER, stack.credentials.password, plan.model)


class _Memory:
    """The largest sum seen; looking costs a walk through /proc, so it looks at every tenth tick."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._ticks, self.peak = stack, 0, 0

    def look(self) -> None:
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
