"""The HTTP face: `/predict`, `/predict_batch`, `/models`, `/signals`, `/admin`. BentoML adds probes, /metrics, docs.

`Answerer` turns the bytes of a request into the bytes of an answer. It has two doors: `PredictionProtocol`, which takes
predictions off the connection before uvicorn and BentoML spend anything on them, and the FastAPI application, which
documents them and routes everything else.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson
from fastapi import FastAPI, Request, Response

from serving.auth import Auth, Role
from serving.limits import BODY_SECONDS, Overloaded, check_length, late
from serving.schema import BROKEN, Asked, BadRequest, Prediction, Predictions, Problem, RequestSchema
from training.contract.model_spec import ModelSpec
from training.settings import ServingSettings

if TYPE_CHECKING:
    from serving.predictor import Predictor
    from serving.turns import Outcome

JSON = "application/json"
PIN = b"x-perennial-version"
PREDICT, PREDICT_BATCH = "/predict", "/predict_batch"
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    401: {"model": Problem, "description": "An API key is needed"},
    403: {"model": Problem, "description": "Not allowed to this key, or not by the service's settings"},
    404: {"model": Problem, "description": "The version that the request is pinned to is not loaded"},
    413: {"model": Problem, "description": "Too many payments, or too many bytes"},
    422: {"model": Problem, "description": "A field is wrong, missing or unknown: the message names it"},
    503: {"model": Problem, "description": "No champion, no features, or too much to do; Retry-After says when again"},
}
GUARDED: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (401, 403)}
PARAMETERS = [
    {
        "name": "X-Perennial-Version",
        "in": "header",
        "description": "The alias or version that shall answer, where the service allows it",
        "schema": {"type": "string"},
    }
]
EXPLAIN = {
    "name": "explain",
    "in": "query",
    "description": "What each feature contributes to the score, where the service allows it",
    "schema": {"type": "boolean"},
}

log = logging.getLogger("perennial")

#: Status, body, further headers.
Answer = tuple[int, bytes, list[tuple[bytes, bytes]]]


@dataclass(slots=True)
class Call:
    """A POST to one of the prediction routes, whole: by whom, and when it came (time.perf_counter)."""

    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    peer: str | None
    received: float


class Answerer:
    """Answers predictions, once `predictor` is set."""

    def __init__(self, settings: ServingSettings, spec: ModelSpec) -> None:
        self.schema = RequestSchema(spec)
        self.auth = Auth(settings)
        self.predictor: Predictor | None = None
        self._pinning, self._explaining = settings.serving_pinning, settings.serving_explain

    def answer(self, call: Call, tell: Callable[[Answer], None]) -> None:
        """Answer `call`: `tell` is called with the answer, now or later."""
        predictor = self.predictor
        assert predictor is not None
        try:
            self.auth.check(call.headers, call.peer)
            predictor.limits.enter()
        except BadRequest as refused:
            tell(self.refuse(refused))
            return

        def answered(outcome: "Outcome") -> None:
            predictor.limits.leave()
            if isinstance(outcome, BadRequest):
                tell(self.refuse(outcome))
            else:
                content = orjson.dumps(outcome[0] if call.path == PREDICT else {"predictions": outcome})
                predictor.metrics.answered(call.path, time.perf_counter() - call.received)
                tell((200, content, []))

        try:
            rows = [self.schema.one(call.body)] if call.path == PREDICT else self.schema.many(call.body)
            pinned, explain = call.headers.get(PIN), bool(call.query) and self._explain(call.path, call.query)
            asked = Asked(rows, call.received, self._pinned(pinned) if pinned else None, explain)
            predictor.ask(asked, answered)
        except BadRequest as refused:
            answered(refused)
        except Exception:
            log.exception("A prediction failed")
            answered(BROKEN)

    def refuse(self, refused: BadRequest) -> Answer:
        """The answer that says why there is none."""
        if self.predictor is not None:
            self.predictor.metrics.refusals.labels(refused.status).inc()
            if isinstance(refused, Overloaded):
                self.predictor.metrics.shed.inc()
        headers = [(b"retry-after", str(refused.retry_after).encode())] if refused.retry_after else []
        headers += [(b"www-authenticate", b"Bearer")] if refused.status == 401 else []
        return refused.status, refused.problem.model_dump_json().encode(), headers

    def _pinned(self, wanted: bytes) -> str:
        if not self._pinning:
            raise BadRequest(403, Problem(error="X-Perennial-Version: pinning is off (CT_SERVING_PINNING)"))
        return wanted.decode("latin-1").strip()

    def _explain(self, path: str, query: bytes) -> bool:
        wanted = parse_qs(query.decode("latin-1")).get("explain", ["false"])[-1].lower()
        if wanted not in ("true", "1", "false", "0"):
            raise BadRequest(422, Problem(error="explain: must be true or false", fields={"explain": "true or false"}))
        if wanted in ("false", "0"):
            return False
        if path != PREDICT:
            raise BadRequest(422, Problem(error="explain: one payment at a time", fields={"explain": "not here"}))
        if not self._explaining:
            raise BadRequest(403, Problem(error="explain: explanations are off (CT_SERVING_EXPLAIN)"))
        return True


def application(spec: ModelSpec, answerer: Answerer) -> FastAPI:
    """The app of model `spec`: everything that `answerer` answers, documented, and what is not a prediction."""
    schema = answerer.schema
    app = FastAPI(title=spec.title, openapi_url=None)

    async def answered(request: Request) -> Response:
        received = time.perf_counter()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            body = await _body(request)
        except BadRequest as refused:
            return _response(answerer.refuse(refused))

        def tell(found: Answer) -> None:
            if not answer.done():  # cancelled: the caller has gone, or BentoML's patience is at its end
                answer.set_result(found)

        peer = request.client.host if request.client else None
        headers, query = dict(request.headers.raw), request.scope["query_string"]
        answerer.answer(Call(request.url.path, query, headers, body, peer, received), tell)
        return _response(await answer)

    def documented(model: Any, *more: Any) -> dict[str, Any]:
        return schema.openapi(model) | {"parameters": [*PARAMETERS, *more]}

    @app.post(PREDICT, response_model=Prediction, responses=REFUSALS, openapi_extra=documented(schema.payment, EXPLAIN))
    async def predict(request: Request) -> Response:
        """Score one payment: a flat JSON object."""
        return await answered(request)

    @app.post(PREDICT_BATCH, response_model=Predictions, responses=REFUSALS, openapi_extra=documented(schema.batch))
    async def predict_batch(request: Request) -> Response:
        """Score up to 1,000 payments: a JSON list, or an object whose `payments` is one."""
        return await answered(request)

    @app.get("/models", responses=GUARDED)
    async def models(request: Request) -> Response:
        """What serves since when, what was refused and why."""
        return _guarded(answerer, request, "predict", lambda predictor: predictor.models())

    @app.get("/signals", responses=GUARDED)
    async def signals(request: Request) -> Response:
        """What a rollout's guards look at: per version and stage, what this replica has seen."""
        return _guarded(answerer, request, "predict", lambda predictor: predictor.signals.snapshot())

    @app.get("/admin/state", responses=GUARDED)
    async def state(request: Request) -> Response:
        """How the replica is doing: load, circuit breaker, prediction log. For admins."""
        return _guarded(answerer, request, "admin", lambda predictor: predictor.state())

    @app.post("/admin/drain", responses=GUARDED)
    async def drain(request: Request) -> Response:
        """Take the replica out of the rotation: not ready, but answering. For admins."""
        return _guarded(answerer, request, "admin", lambda predictor: _drain(predictor, True))

    @app.post("/admin/resume", responses=GUARDED)
    async def resume(request: Request) -> Response:
        """Put the replica back into the rotation. For admins."""
        return _guarded(answerer, request, "admin", lambda predictor: _drain(predictor, False))

    return app


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                check_length(body)
    except TimeoutError:
        raise late() from None
    return bytes(body)


def _drain(predictor: "Predictor", draining: bool) -> dict[str, Any]:
    predictor.limits.draining = draining
    return predictor.state()


def _guarded(answerer: Answerer, request: Request, role: Role, make: Any) -> Response:
    try:
        answerer.auth.check(dict(request.headers.raw), request.client.host if request.client else None, role)
    except BadRequest as refused:
        return _response(answerer.refuse(refused))
    return Response(orjson.dumps(make(answerer.predictor), option=orjson.OPT_SERIALIZE_NUMPY), media_type=JSON)


def _response(answer: Answer) -> Response:
    status, body, headers = answer
    return Response(body, status, {name.decode(): value.decode() for name, value in headers}, JSON)
