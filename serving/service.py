"""The BentoML service of one model: `bentoml serve serving.service:Service --host 127.0.0.1 --port 3000`.

BentoML imports this file in its parent process as well as in the worker, so whatever is heavy is imported where the
worker starts. Set BENTOML_DO_NOT_TRACK=true and BENTOML_HOME (see `local/`).
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import bentoml
from starlette.exceptions import HTTPException

from serving.front import FrontedService
from serving.routes import Answerer, application
from training.contract.model_spec import load_model_spec
from training.settings import load_settings

#: Threads write the log and score shadows; they give the event loop its turn sooner than after Python's 5 ms.
SWITCH_SECONDS = 0.0005
#: Objects made before the youngest are looked through: rows on their way to the log are alive, not garbage.
GARBAGE = 50_000

settings = load_settings()
spec = load_model_spec(settings.serving_model, settings.models_dir)
answerer = Answerer(settings, spec)
app = application(spec, answerer)


@bentoml.service(
    name=spec.name,
    workers=1,  # the prediction log has one writer; scale by replicas
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    service_class=FrontedService,
)
@bentoml.asgi_app(app, path="/")
class Service:
    answerer = answerer

    def __init__(self) -> None:
        from serving.predictor import Predictor

        logging.getLogger("perennial").setLevel(settings.log_level)
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.set_threshold(GARBAGE, 20, 20)
        self.frozen = False
        self.predictor = answerer.predictor = Predictor(settings, spec)
        self.predictor.start()
        _drain_before_the_end(self.predictor, settings.serving_drain_seconds)
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent-watcher", daemon=True).start()

    def __is_ready__(self) -> bool:
        reason = self.predictor.why_not_ready()
        if reason is not None:
            raise HTTPException(503, detail=reason)
        if not self.frozen:
            # The libraries that are loaded by now stay: looking through them for garbage would hold up answers.
            gc.collect()
            gc.freeze()
            self.frozen = True
        return True

    @bentoml.on_shutdown
    def stop(self) -> None:
        self.predictor.stop()


def _drain_before_the_end(predictor: Any, seconds: float) -> None:
    """On SIGTERM the replica is not ready; `seconds` later the server stops to listen, and finishes what it took."""
    finish, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()

    def drain(number: int, frame: FrameType | None) -> None:
        first, predictor.limits.draining = not predictor.limits.draining, True
        if callable(finish):
            if seconds and first:
                loop.call_soon_threadsafe(loop.call_later, seconds, finish, number, frame)
            else:
                finish(number, frame)

    signal.signal(signal.SIGTERM, drain)


def _end_with(parent: int) -> None:
    """End when BentoML's parent process is gone: an orphaned worker would keep the port from the next service."""
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
