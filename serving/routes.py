"""The FastAPI application that BentoML mounts: `/models`, `/signals`, `/admin`, and the OpenAPI document.

It documents `/predict` and `/predict_batch` too; PredictionDispatcher answers them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response

from serving.auth import Role
from serving.endpoint import PREDICT, PREDICT_BATCH, PredictEndpoint
from serving.request import HttpResponse
from serving.schema import BadRequest, Problem, answer_schema
from training.contract.model_spec import ModelSpec
from training.contract.replicas import ReplicaModels, ReplicaState
from training.contract.signals import Signals

if TYPE_CHECKING:
    from serving.predictor import Predictor

JSON = "application/json"
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    401: {"model": Problem, "description": "An API key is needed"},
    403: {"model": Problem, "description": "Not allowed to this key, or not by the service's settings"},
    404: {"model": Problem, "description": "The version that the request is pinned to is not loaded"},
    413: {"model": Problem, "description": "Too many events, or too many bytes"},
    422: {"model": Problem, "description": "A field is wrong, missing or unknown: the message names it"},
    503: {"model": Problem, "description": "No champion, no features, or too much to do; Retry-After says when again"},
}
GUARDED: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (401, 403)}
VERSION = {
    "name": "X-Perennial-Version",
    "in": "header",
    "description": "The alias or version that shall answer, where the service allows it",
    "schema": {"type": "string"},
}
EXPLAIN = {
    "name": "explain",
    "in": "query",
    "description": "What each feature contributes to the score, where the service allows it",
    "schema": {"type": "boolean"},
}


def application(spec: ModelSpec, endpoint: PredictEndpoint) -> FastAPI:
    """The application for the model of `spec`; who may call it is decided by `endpoint.auth`."""
    app = FastAPI(title=spec.title, openapi_url=None)
    _document_predictions(app, endpoint, answer_schema(spec))

    @app.get("/models", response_model=ReplicaModels, responses=GUARDED)
    async def models(request: Request) -> Response:
        """What serves since when, what was refused and why."""
        return _guarded(endpoint, request, "predict", lambda predictor: predictor.models())

    @app.get("/signals", response_model=Signals, responses=GUARDED)
    async def signals(request: Request) -> Response:
        """What a rollout's guards look at: per version and stage, what this replica has seen."""
        return _guarded(endpoint, request, "predict", lambda predictor: predictor.signals.snapshot())

    @app.get("/admin/state", response_model=ReplicaState, responses=GUARDED)
    async def state(request: Request) -> Response:
        """How the replica is doing: load, circuit breaker, prediction log. For admins."""
        return _guarded(endpoint, request, "admin", lambda predictor: predictor.state())

    @app.post("/admin/drain", response_model=ReplicaState, responses=GUARDED)
    async def drain(request: Request) -> Response:
        """Take the replica out of the rotation: not ready, but answering. For admins."""
        return _guarded(endpoint, request, "admin", lambda predictor: _drain(predictor, True))

    @app.post("/admin/resume", response_model=ReplicaState, responses=GUARDED)
    async def resume(request: Request) -> Response:
        """Put the replica back into the rotation. For admins."""
        return _guarded(endpoint, request, "admin", lambda predictor: _drain(predictor, False))

    return app


def _document_predictions(app: FastAPI, endpoint: PredictEndpoint, answer: dict[str, Any]) -> None:
    """Routes for the OpenAPI document, and for 405 to other methods. A POST never comes here."""
    schema = endpoint.schema
    answers = {
        "title": "Predictions",
        "description": "The answer for several rows, in their order.",
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": answer}},
        "required": ["predictions"],
    }

    def documented(model: Any, answer: dict[str, Any], *parameters: Any) -> dict[str, Any]:
        success = {"200": {"description": "Scored", "content": {JSON: {"schema": answer}}}}
        return schema.openapi(model) | {"parameters": [VERSION, *parameters], "responses": success}

    @app.post(PREDICT, responses=REFUSALS, openapi_extra=documented(schema.event, answer, EXPLAIN))
    async def predict() -> Response:
        """Score one event: a flat JSON object."""
        raise NotImplementedError("PredictionDispatcher answers this route")

    @app.post(PREDICT_BATCH, responses=REFUSALS, openapi_extra=documented(schema.batch, answers))
    async def predict_batch() -> Response:
        """Score up to 1,000 events: a JSON list, or an object whose `events` is one."""
        raise NotImplementedError("PredictionDispatcher answers this route")


def _drain(predictor: "Predictor", draining: bool) -> ReplicaState:
    predictor.limits.draining = draining
    return predictor.state()


def _guarded(endpoint: PredictEndpoint, request: Request, role: Role, make: Callable[["Predictor"], Any]) -> Response:
    try:
        endpoint.auth.check(dict(request.headers.raw), request.client.host if request.client else None, role)
    except BadRequest as refused:
        return _response(endpoint.refuse(refused))
    assert endpoint.predictor is not None
    return Response(make(endpoint.predictor).model_dump_json(), media_type=JSON)


def _response(response: HttpResponse) -> Response:
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return Response(response.content, response.status, headers, JSON)
