"""The BentoML service of one model: `bentoml serve serving.service:Service --host 127.0.0.1 --port 3000`.

BentoML imports this file in its parent process as well as in the worker, so whatever is heavy is imported where the
worker starts. Set BENTOML_DO_NOT_TRACK=true and BENTOML_HOME (see `local/`).
"""

import logging
import os
import signal
import threading

import bentoml
from starlette.exceptions import HTTPException

from serving.routes import application
from training.contract.model_spec import load_model_spec
from training.settings import load_settings

settings = load_settings()
spec = load_model_spec(settings.serving_model, settings.models_dir)
app = application(spec)


@bentoml.service(
    name=spec.name,
    workers=1,  # the prediction log has one writer; scale by replicas
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(app, path="/")
class Service:
    def __init__(self) -> None:
        from serving.predictor import Predictor

        logging.getLogger("perennial").setLevel(settings.log_level)
        self.predictor = app.state.predictor = Predictor(settings, spec)
        self.predictor.start()
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent-watcher", daemon=True).start()

    def __is_ready__(self) -> bool:
        reason = self.predictor.why_not_ready()
        if reason is not None:
            raise HTTPException(503, detail=reason)
        return True

    @bentoml.on_shutdown
    def stop(self) -> None:
        self.predictor.stop()


def _end_with(parent: int) -> None:
    """End when BentoML's parent process is gone: an orphaned worker would keep the port from the next service."""
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
