"""Builds the BentoML service from the settings and the specs of its models."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import bentoml
from starlette.exceptions import HTTPException

from serving.auth import Auth
from serving.compat.bentoml import WrappedService
from serving.dispatcher import PredictionDispatcher
from serving.frontend import Frontend
from serving.limits import Limits
from serving.management import ManagementServer, with_management_elsewhere
from serving.model_endpoints import answer_predictions
from serving.routes import application, document_predictions
from serving.served_specs import ServedSpecs
from training.layout import require_layout
from training.settings import ServingSettings

#: Threads write the prediction log and score shadows. After this time, instead of Python's 5 ms, such a thread gives
#: way to the event loop.
SWITCH_SECONDS = 0.0005
#: Objects made before the garbage collector looks at the youngest: rows on their way to the log are not garbage.
GARBAGE = 50_000


def build(settings: ServingSettings) -> bentoml.Service:
    """The service of the models that `settings` name. Its worker loads versions when it starts, not here.

    Raises ConfigError when the settings are wrong, no model has a spec that can be read, or the state has the layout of
    another version.
    """
    require_layout(settings)
    frontend = Frontend(settings, ServedSpecs(settings), Auth(settings))
    frontend.specs.read()
    frontend.specs.require()
    app = application(frontend)

    def on_change() -> None:
        answer_predictions(frontend)
        document_predictions(app, frontend)

    class Perennial:
        def __init__(self) -> None:
            self.worker = Worker(frontend, on_change)

        @staticmethod
        def wrap(app: Any) -> PredictionDispatcher:
            frontend.management = everything = PredictionDispatcher(app, frontend.endpoints)
            if not settings.serving_management_port:
                return everything
            return PredictionDispatcher(with_management_elsewhere(app), frontend.endpoints)

        def __is_ready__(self) -> bool:
            return self.worker.check_ready()

        @bentoml.on_shutdown
        def stop(self) -> None:
            self.worker.stop()

    service = bentoml.service(
        name=f"perennial_{settings.serving_name}",
        workers=1,  # the prediction log has one writer; scale by replicas
        traffic={"timeout": 30},
        logging={"access": {"enabled": False}},
        service_class=WrappedService,
    )(Perennial)
    service.mount_asgi_app(app, path="/")
    return service


class Worker:
    """The worker process of a service, from its start in the event loop to its end.

    `on_change` is called whenever other models are served.
    """

    def __init__(self, frontend: Frontend, on_change: Callable[[], None]) -> None:
        # BentoML's parent process imports this module too, and needs none of these libraries.
        from serving.model_hosts import ModelHosts
        from serving.replica import Replica

        settings = frontend.settings
        logging.getLogger("perennial").setLevel(settings.log_level)
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.set_threshold(GARBAGE, 20, 20)
        self._frozen = False
        self._management = ManagementServer(frontend.management, settings.serving_management_port)
        self._hosts = frontend.hosts = ModelHosts(Replica(settings), frontend.specs, on_change)
        self._hosts.start()
        _drain_on_sigterm(self._hosts.replica.limits, settings.serving_drain_seconds)
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent-watcher", daemon=True).start()

    def check_ready(self) -> bool:
        """True. Raises HTTPException (503) with the reason when the replica is not ready."""
        reason = self._hosts.why_not_ready()
        if reason is not None:
            raise HTTPException(503, detail=reason)
        if not self._frozen:
            # The libraries that are loaded by now stay: looking through them for garbage would delay answers.
            gc.collect()
            gc.freeze()
            self._frozen = True
        return True

    def stop(self) -> None:
        self._management.stop()
        self._hosts.stop()


def _drain_on_sigterm(limits: Limits, seconds: float) -> None:
    """On SIGTERM the replica becomes not ready; `seconds` later the server stops listening and finishes what it has."""
    finish, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()

    def drain(number: int, frame: FrameType | None) -> None:
        first, limits.draining = not limits.draining, True
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
