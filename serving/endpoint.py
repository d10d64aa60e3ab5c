"""`POST /models/<m>/predict` and `/predict_batch`: from the bytes of a request to the bytes of its response."""

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs

import orjson

from serving.auth import Auth
from serving.limits import Overloaded
from serving.micro_batcher import prediction_failed
from serving.request import HttpResponse, PredictionRequest
from serving.schema import BadRequest, Problem
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


class PredictEndpoint:
    """Predictions of one model. `operation` is PREDICT or PREDICT_BATCH."""

    def __init__(self, host: "ModelHost", auth: Auth, settings: ServingSettings, operation: str) -> None:
        self._host, self._auth = host, auth
        self._operation, self._one = operation, operation == PREDICT
        self._pinning, self._explaining = settings.serving_pinning, settings.serving_explain

    async def answer(self, scope: Mapping[str, Any], body: bytes, received: float) -> HttpResponse:
        host = self._host
        client, headers = scope["client"], dict(scope["headers"])
        try:
            self._auth.check(headers, client[0] if client else None)
            host.limits.enter()
        except BadRequest as refused:
            return self.refuse(refused)
        try:
            request = self._parse(scope["query_string"], headers.get(VERSION_HEADER), body, received)
            outcome = await host.predict(request)
            if isinstance(outcome, BadRequest):
                return self.refuse(outcome)
            content = orjson.dumps(outcome[0] if self._one else {"predictions": outcome})
            host.metrics.answered(self._operation, time.perf_counter() - received)
            return HttpResponse(200, content)
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

    def _parse(self, query: bytes, version: bytes | None, body: bytes, received: float) -> PredictionRequest:
        schema = self._host.schema
        rows = [schema.one(body)] if self._one else schema.many(body)
        pinned = self._pinned(version) if version else None
        return PredictionRequest(rows, received, pinned, bool(query) and self._explain(query))

    def _pinned(self, version: bytes) -> str:
        if not self._pinning:
            raise BadRequest(403, Problem(error="X-Perennial-Version: pinning is off (CT_SERVING_PINNING)"))
        return version.decode("latin-1").strip()

    def _explain(self, query: bytes) -> bool:
        wanted = parse_qs(query.decode("latin-1")).get("explain", ["false"])[-1].lower()
        if wanted not in ("true", "1", "false", "0"):
            raise BadRequest(422, Problem(error="explain: must be true or false", fields={"explain": "true or false"}))
        if wanted in ("false", "0"):
            return False
        if not self._one:
            raise BadRequest(422, Problem(error="explain: one event at a time", fields={"explain": "not here"}))
        if not self._explaining:
            raise BadRequest(403, Problem(error="explain: explanations are off (CT_SERVING_EXPLAIN)"))
        return True


def refusal(refused: BadRequest) -> HttpResponse:
    """The response that says why there is no answer."""
    headers = [(b"retry-after", str(refused.retry_after).encode())] if refused.retry_after else []
    headers += [(b"www-authenticate", b"Bearer")] if refused.status == 401 else []
    return HttpResponse(refused.status, refused.problem.model_dump_json().encode(), tuple(headers))
