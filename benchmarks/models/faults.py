"""What the other models of a service notice of the faults of one."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.serving import load
from benchmarks.serving.report import line
from testing.many_models import ManyModels, running_models
from testing.serving_artifacts import EVENT, NAN_FROM

VICTIM, OTHERS = "victim", ("one", "other")
#: Requests per second to the others together; callers of the victim during a fault, and during a flood.
RATE, CALLERS, FLOOD = 100, 4, 128


def faults(seconds: int) -> None:
    """Print the latency of two models, and their failed requests, before and during each fault of a third one."""
    with tempfile.TemporaryDirectory(prefix="perennial-faults-") as name:
        kinds = dict.fromkeys((VICTIM, *OTHERS), "binary")
        with running_models(Path(name), kinds, serving_maximum_in_flight=64) as models:
            print(
                f"{RATE} requests/s to two models; a third one has the fault, and callers that never pause:", flush=True
            )
            _steady(models, 2)
            for title, begin, callers in FAULTS:
                models.promote(VICTIM, models.register(VICTIM))
                before = _steady(models, seconds)
                begin(models)
                with _calls(models, callers, seconds):
                    during = _steady(models, seconds)
                line(f"{title}: before", [before])
                line(f"{title}: during", [during])


def _champion(**fault: bool | int) -> Callable[[ManyModels], None]:
    return lambda models: models.promote(VICTIM, models.register(VICTIM, **fault))


def _cannot_be_loaded(models: ManyModels) -> None:
    models.set_champion(VICTIM, models.register(VICTIM, golden_error=0.5))


def _no_log(models: ManyModels) -> None:
    """Folders are where the next files of the log would be."""
    folder = models.spool(VICTIM)
    last = max(int(path.stem) for path in folder.iterdir())
    for number in range(last + 1, last + 50):
        (folder / f"{number:012d}.open").mkdir(exist_ok=True)


#: What it is, how it begins, and how many callers the victim has.
FAULTS: list[tuple[str, Callable[[ManyModels], None], int]] = [
    ("version cannot be loaded", _cannot_be_loaded, CALLERS),
    ("scores are not numbers", _champion(nan=True), CALLERS),
    ("raises while scoring", _champion(raises=True), CALLERS),
    ("slow", _champion(slow=150), CALLERS),
    ("flood", _champion(slow=20), FLOOD),
    ("log cannot be written", _no_log, CALLERS),
]


def _steady(models: ManyModels, seconds: int) -> load.Load:
    paths = [f"/models/{name}/predict" for name in OTHERS]
    return load.steady(models.service.url, [EVENT], RATE, seconds, paths=paths)


@contextmanager
def _calls(models: ManyModels, callers: int, seconds: int) -> Iterator[None]:
    """Requests to the victim meanwhile, from another process, which ends a little later."""
    body, folder = EVENT | {"amount": NAN_FROM + 1}, models.folder
    url = f"{models.service.url}/models/{VICTIM}/predict"
    caller = threading.Thread(target=load.full, args=(url, [body], seconds + 1, folder, callers))
    caller.start()
    time.sleep(0.5)
    yield
    caller.join()
