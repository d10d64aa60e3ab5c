"""`POST /models/<m>/predict` and `/predict_batch`: from the bytes of a request to the bytes of its response."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs

import orjson

from serving.auth import Auth
from serving.limits import Overloaded
from serving.micro_batcher import prediction_failed
from serving.request import HttpResponse, PredictionRequest
from serving.schema import BadRequest, Problem, Row
from training.contract.predictions import Prediction
from training.settings import ServingSettings

if TYPE_CHECKING:
    from serving.model_host import ModelHost

PREDICT, PREDICT_BATCH = "/predict", "/predict_batch"
VERSION_HEADER = b"x-perennial-version"

log = logging.getLogger("perennial")


class Endpoint(Protocol):
    """Answers the requests to one path."""

    async def answer(self, scope: Mapping[str, Any], body: bytes, received: float) -> HttpResponse:
        """The response to the request with this ASGI `scope` and `body`, received at `received` (time.perf_counter)."""
        ...

    def refuse(self, refused: BadRequest) -> HttpResponse:
        """The response that says why there is no answer. It is counted."""
        ...


#: The rows of a request, whether explanations are wanted, and what makes the response of their predictions.
Prepared = tuple[list[Row], bool, Callable[[list[Prediction]], HttpResponse]]


class ModelEndpoint(ABC):
    """Predictions of one model. A subclass reads the body of a request and writes that of the response."""

    #: Metrics have it as their `path`.
    operation: str

    def __init__(self, host: "ModelHost", auth: Auth, settings: ServingSettings) -> None:
        self._host, self._auth = host, auth
        self._pinning, self._explaining = settings.serving_pinning, settings.serving_explain

    async def answer(self, scope: Mapping[str, Any], body: bytes, received: float) -> HttpResponse:
        host = self._host
        client, headers = scope["client"], dict(scope["headers"])
        try:
            self._auth.check(headers, client[0] if client else None)
            host.limits.enter()
        except BadRequest as refused:
            if isinstance(refused, Overloaded) and refused.pause:
                await asyncio.sleep(refused.pause)
            return self.refuse(refused)
        try:
            rows, explain, respond = self._prepare(scope["query_string"], headers, body)
            version = headers.get(VERSION_HEADER)
            outcome = await host.predict(
                PredictionRequest(rows, received, self._pinned(version) if version else None, explain)
            )
            if isinstance(outcome, BadRequest):
                return self.refuse(outcome)
            response = respond(outcome)
            host.metrics.answered(self.operation, time.perf_counter() - received)
            return response
        except BadRequest as refused:
            return self.refuse(refused)
        except Exception:
            log.exception("A prediction of %s failed", host.spec.name)
            return self.refuse(prediction_failed())
        finally:
            host.limits.leave()

    def refuse(self, refused: BadRequest) -> HttpResponse:
        metrics = self._host.metrics
        metrics.not_answered(refused.status)
        if isinstance(refused, Overloaded):
            metrics.shed.inc()
        return refusal(refused)

    @abstractmethod
    def _prepare(self, query: bytes, headers: Mapping[bytes, bytes], body: bytes) -> Prepared:
        """Raises BadRequest when the request is wrong."""

    def _pinned(self, version: bytes) -> str:
        if not self._pinning:
            raise BadRequest(403, Problem(error="X-Perennial-Version: pinning is off (CT_SERVING_PINNING)"))
        return version.decode("latin-1").strip()


class PredictEndpoint(ModelEndpoint):
    """One event: a flat JSON object."""

    operation = PREDICT

    def _prepare(self, query: bytes, headers: Mapping[bytes, bytes], body: bytes) -> Prepared:
        rows = [self._host.schema.one(body)]
        explain = bool(query) and _explain(query)
        if explain and not self._explaining:
            raise BadRequest(403, Problem(error="explain: explanations are off (CT_SERVING_EXPLAIN)"))
        return rows, explain, _one_answer


class PredictBatchEndpoint(ModelEndpoint):
    """Several events."""

    operation = PREDICT_BATCH

    def _prepare(self, query: bytes, headers: Mapping[bytes, bytes], body: bytes) -> Prepared:
        rows = self._host.schema.many(body)
        if query and _explain(query):
            raise BadRequest(422, Problem(error="explain: one event at a time", fields={"explain": "not here"}))
        return rows, False, _many_answers


def _one_answer(predictions: list[Prediction]) -> HttpResponse:
    return HttpResponse(200, orjson.dumps(predictions[0]))


def _many_answers(predictions: list[Prediction]) -> HttpResponse:
    return HttpResponse(200, orjson.dumps({"predictions": predictions}))


def _explain(query: bytes) -> bool:
    """Whether the query asks for an explanation."""
    wanted = parse_qs(query.decode("latin-1")).get("explain", ["false"])[-1].lower()
    if wanted not in ("true", "1", "false", "0"):
        raise BadRequest(422, Problem(error="explain: must be true or false", fields={"explain": "true or false"}))
    return wanted in ("true", "1")


def refusal(refused: BadRequest) -> HttpResponse:
    """The response that says why there is no answer."""
    headers = [(b"retry-after", str(refused.retry_after).encode())] if refused.retry_after else []
    headers += [(b"www-authenticate", b"Bearer")] if refused.status == 401 else []
    return HttpResponse(refused.status, refused.problem.model_dump_json().encode(), tuple(headers))
