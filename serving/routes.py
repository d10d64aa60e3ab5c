"""The HTTP face: `POST /predict`, `POST /predict_batch`, `GET /models`. BentoML adds /livez, /readyz, /metrics, docs.

Bodies are parsed straight from bytes by the pydantic models of the spec, and handlers return finished responses:
FastAPI routes, and writes the OpenAPI document.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from serving.schema import MAXIMUM_BODY_BYTES, BadRequest, Prediction, Predictions, Problem, RequestSchema, Row
from training.contract.model_spec import ModelSpec

JSON = "application/json"
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    413: {"model": Problem, "description": "Too many payments, or too many bytes"},
    422: {"model": Problem, "description": "A field is wrong, missing or unknown: the message names it"},
    503: {"model": Problem, "description": "No champion serves, or the online store does not answer"},
}


def application(spec: ModelSpec) -> FastAPI:
    """The app of model `spec`; its `state.predictor` must be set before it takes requests."""
    schema = RequestSchema(spec)
    app = FastAPI(title=spec.title, openapi_url=None)

    @app.post("/predict", response_model=Prediction, responses=REFUSALS, openapi_extra=schema.openapi(schema.payment))
    async def predict(request: Request) -> Response:
        """Score one payment: a flat JSON object."""
        return await _answer(request, lambda body: [schema.one(body)], lambda predictions: predictions[0])

    @app.post(
        "/predict_batch", response_model=Predictions, responses=REFUSALS, openapi_extra=schema.openapi(schema.batch)
    )
    async def predict_batch(request: Request) -> Response:
        """Score up to 1,000 payments: a JSON list, or an object whose `payments` is one."""
        return await _answer(request, schema.many, lambda predictions: Predictions(predictions=predictions))

    @app.get("/models")
    async def models(request: Request) -> dict[str, Any]:
        """What serves since when, what was refused and why."""
        return request.app.state.predictor.models()

    @app.get("/signals")
    async def signals(request: Request) -> dict[str, Any]:
        """What a rollout's guards look at: counts since the state of traffic last changed."""
        return dict(request.app.state.predictor.watcher.signals.snapshot())

    return app


async def _answer(
    request: Request, parse: Callable[[bytes], list[Row]], wrap: Callable[[list[Prediction]], BaseModel]
) -> Response:
    predictor = request.app.state.predictor
    try:
        rows = parse(await _body(request))
        predictions = await asyncio.get_running_loop().run_in_executor(predictor.scorer, predictor.predict, rows)
    except BadRequest as refused:
        return Response(refused.problem.model_dump_json(), refused.status, media_type=JSON)
    return Response(wrap(predictions).model_dump_json(), media_type=JSON)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAXIMUM_BODY_BYTES:
            raise BadRequest(413, Problem(error=f"body: more than {MAXIMUM_BODY_BYTES} bytes"))
    return bytes(body)
