"""The FastAPI application that BentoML mounts: `/models`, `/admin`, and the OpenAPI document.

It documents the predictions of each model too; PredictionDispatcher answers them.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute

from serving.auth import Role
from serving.endpoint import PREDICT, PREDICT_BATCH, refusal
from serving.frontend import Frontend
from serving.inference_protocol.protocol_routes import add_protocol
from serving.request import HttpResponse
from serving.schema import BadRequest, Problem, answer_schema
from training.contract.replicas import ReplicaModels, ReplicaState, ServedModels
from training.contract.signals import Signals

if TYPE_CHECKING:
    from serving.model_host import ModelHost
    from serving.model_hosts import ModelHosts

JSON = "application/json"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    401: {"model": Problem, "description": "An API key is needed"},
    403: {"model": Problem, "description": "Not allowed to this key, or not by the service's settings"},
    404: {"model": Problem, "description": "The service does not serve the model, or the pinned version is not loaded"},
    413: {"model": Problem, "description": "Too many events, or too many bytes"},
    422: {"model": Problem, "description": "A field is wrong, missing or unknown: the message names it"},
    503: {"model": Problem, "description": "No champion, no features, or too much to do; Retry-After says when again"},
}
GUARDED: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (401, 403)}
OF_A_MODEL = GUARDED | {404: REFUSALS[404]}
#: The page shows the description, but not the title.
DESCRIPTION = """
# {title}

Predictions of the models below, from their champions. Each model has its own request: its group shows the fields.

`GET /models` says what serves. A caller may need an API key. `GET /v2` speaks the
[Open Inference Protocol](https://github.com/kserve/open-inference-protocol).
"""
STATUS, ADMIN = "What serves", "Administration"
#: The groups after those of the models: name → what is in it.
GROUPS = {
    STATUS: "Versions, traffic and signals of the models.",
    ADMIN: "Of this replica, for keys with the role admin.",
}
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


def application(frontend: Frontend) -> FastAPI:
    """The application for the models of `frontend`, which also decides who may call it."""
    settings = frontend.settings
    title = f"Perennial: predictions of the service {settings.serving_name}"
    app = FastAPI(
        title=title,
        version=(settings.git_sha or "dev")[:12],
        description=DESCRIPTION.format(title=title),
        openapi_url=None,
    )
    app.openapi_tags = _groups({})

    @app.get("/models", response_model=ServedModels, responses=GUARDED, tags=[STATUS])
    async def models(request: Request) -> Response:
        """Every model: what serves since when, what was refused and why."""
        return _guarded(frontend, request, "predict", lambda hosts: hosts.models())

    @app.get("/models/{model}", response_model=ReplicaModels, responses=OF_A_MODEL, tags=[STATUS])
    async def model(request: Request, model: str) -> Response:
        """One model: what serves since when, what was refused and why."""
        return _guarded(frontend, request, "predict", lambda hosts: hosts.of(model).models())

    @app.get("/models/{model}/signals", response_model=Signals, responses=OF_A_MODEL, tags=[STATUS])
    async def signals(request: Request, model: str) -> Response:
        """What a rollout's guards look at: per version and stage, what this replica has seen."""
        return _guarded(frontend, request, "predict", lambda hosts: hosts.of(model).signals.snapshot())

    @app.get("/admin/state", response_model=ReplicaState, responses=GUARDED, tags=[ADMIN])
    async def state(request: Request) -> Response:
        """How the replica is doing: load, circuit breakers, prediction logs. For admins."""
        return _guarded(frontend, request, "admin", lambda hosts: hosts.state())

    @app.post("/admin/drain", response_model=ReplicaState, responses=GUARDED, tags=[ADMIN])
    async def drain(request: Request) -> Response:
        """Take the replica out of the rotation: not ready, but answering. For admins."""
        return _guarded(frontend, request, "admin", lambda hosts: _drain(hosts, True))

    @app.post("/admin/resume", response_model=ReplicaState, responses=GUARDED, tags=[ADMIN])
    async def resume(request: Request) -> Response:
        """Put the replica back into the rotation. For admins."""
        return _guarded(frontend, request, "admin", lambda hosts: _drain(hosts, False))

    @app.post("/admin/models/{model}/retry", response_model=ReplicaModels, responses=OF_A_MODEL, tags=[ADMIN])
    async def retry(request: Request, model: str) -> Response:
        """Try the refused versions of a model again, also those during whose load the service ended. For admins."""
        return _guarded(frontend, request, "admin", lambda hosts: _retry(hosts.of(model)))

    async def no_prediction(request: Request) -> Response:
        """A POST comes here when the service does not serve the model; other methods always do."""
        try:
            frontend.auth.check(dict(request.headers.raw), request.client.host if request.client else None)
        except BadRequest as refused:
            return _response(refusal(refused))
        if frontend.hosts is None:
            return _response(refusal(BadRequest(503, Problem(error="The service is starting"), retry_after=1)))
        model = request.path_params.get("model", "")
        served = frontend.hosts.all.get(model) if model else frontend.hosts.only
        if request.method != "POST" and served is not None:
            return Response(status_code=405, headers={"allow": "POST"})
        return _response(refusal(frontend.hosts.refusal(model)))

    for path in (PREDICT, PREDICT_BATCH):
        for prefix in ("", "/models/{model}"):
            app.add_route(prefix + path, no_prediction, methods=METHODS, include_in_schema=False)
    add_protocol(app, frontend)
    return app


def document_predictions(app: FastAPI, frontend: Frontend) -> None:
    """Put the predictions of the models that are served now into the OpenAPI document of `app`."""
    hosts = frontend.hosts.all if frontend.hosts else {}
    kept = [route for route in app.router.routes if not isinstance(route, DocumentedRoute)]
    documented = [route for host in hosts.values() for route in _documented(host, f"/models/{host.spec.name}")]
    if frontend.hosts and frontend.hosts.only:
        documented += _documented(frontend.hosts.only, "")
    app.router.routes = [*kept, *documented]
    app.openapi_tags = _groups(hosts)


def _groups(hosts: Mapping[str, "ModelHost"]) -> list[dict[str, Any]]:
    described = {name: host.spec.description or host.spec.title for name, host in sorted(hosts.items())}
    return [{"name": name, "description": text} for name, text in {**described, **GROUPS}.items()]


class DocumentedRoute(APIRoute):
    """A route for the OpenAPI document. PredictionDispatcher answers it."""


def _documented(host: "ModelHost", prefix: str) -> list[DocumentedRoute]:
    schema, answer, title = host.schema, answer_schema(host.spec), host.spec.title
    answers = {
        "title": "Predictions",
        "description": "The answer for several rows, in their order.",
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": answer}},
        "required": ["predictions"],
    }

    def route(path: str, what: str, model: Any, answer: dict[str, Any], *parameters: Any) -> DocumentedRoute:
        success = {"200": {"description": "Scored", "content": {JSON: {"schema": answer}}}}
        extra = schema.openapi(model) | {"parameters": [VERSION, *parameters], "responses": success}
        return DocumentedRoute(
            prefix + path,
            _never,
            methods=["POST"],
            description=what,
            responses=REFUSALS,
            openapi_extra=extra,
            tags=[host.spec.name],
            summary=f"{title}: {path.strip('/')}",
            operation_id=f"{path}_{host.spec.name}{'' if prefix else '_alone'}",
        )

    many = "Score up to 1,000 events: a JSON list, or an object whose `events` is one."
    return [
        route(PREDICT, "Score one event: a flat JSON object.", schema.event, answer, EXPLAIN),
        route(PREDICT_BATCH, many, schema.batch, answers),
    ]


async def _never() -> Response:
    raise NotImplementedError("PredictionDispatcher answers this route")


def _drain(hosts: "ModelHosts", draining: bool) -> ReplicaState:
    hosts.replica.limits.draining = draining
    return hosts.state()


def _retry(host: "ModelHost") -> ReplicaModels:
    host.watcher.retry()
    return host.models()


def _guarded(frontend: Frontend, request: Request, role: Role, make: Callable[["ModelHosts"], Any]) -> Response:
    assert frontend.hosts is not None
    try:
        frontend.auth.check(dict(request.headers.raw), request.client.host if request.client else None, role)
        return Response(make(frontend.hosts).model_dump_json(), media_type=JSON)
    except BadRequest as refused:
        return _response(refusal(refused))


def _response(response: HttpResponse) -> Response:
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return Response(response.content, response.status, headers, JSON)
