"""`POST /predict` and `/predict_batch`: from the bytes of a request to the bytes of its response."""

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson

from serving.auth import Auth
from serving.limits import Overloaded
from serving.micro_batcher import prediction_failed
from serving.request import HttpResponse, PredictionRequest
from serving.schema import BadRequest, Problem, RequestSchema
from training.contract.model_spec import ModelSpec
from training.settings import ServingSettings

if TYPE_CHECKING:
    from serving.predictor import Predictor

PREDICT, PREDICT_BATCH = "/predict", "/predict_batch"
VERSION_HEADER = b"x-perennial-version"

log = logging.getLogger("perennial")


class PredictEndpoint:
    """Answers predictions once `predictor` is set."""

    def __init__(self, settings: ServingSettings, spec: ModelSpec) -> None:
        self.schema = RequestSchema(spec)
        self.auth = Auth(settings)
        self.predictor: Predictor | None = None
        self._pinning, self._explaining = settings.serving_pinning, settings.serving_explain

    async def answer(self, scope: Mapping[str, Any], body: bytes, received: float) -> HttpResponse:
        """The response to the request with this ASGI `scope` and `body`, received at `received` (time.perf_counter)."""
        predictor = self.predictor
        assert predictor is not None
        client, headers = scope["client"], dict(scope["headers"])
        try:
            self.auth.check(headers, client[0] if client else None)
            predictor.limits.enter()
        except BadRequest as refused:
            return self.refuse(refused)
        try:
            path = scope["path"]
            request = self._parse(path, scope["query_string"], headers.get(VERSION_HEADER), body, received)
            outcome = await predictor.predict(request)
            if isinstance(outcome, BadRequest):
                return self.refuse(outcome)
            content = orjson.dumps(outcome[0] if path == PREDICT else {"predictions": outcome})
            predictor.metrics.answered(path, time.perf_counter() - received)
            return HttpResponse(200, content)
        except BadRequest as refused:
            return self.refuse(refused)
        except Exception:
            log.exception("A prediction failed")
            return self.refuse(prediction_failed())
        finally:
            predictor.limits.leave()

    def refuse(self, refused: BadRequest) -> HttpResponse:
        """The response that says why there is no prediction."""
        if self.predictor is not None:
            self.predictor.metrics.refusals.labels(refused.status).inc()
            if isinstance(refused, Overloaded):
                self.predictor.metrics.shed.inc()
        headers = [(b"retry-after", str(refused.retry_after).encode())] if refused.retry_after else []
        headers += [(b"www-authenticate", b"Bearer")] if refused.status == 401 else []
        return HttpResponse(refused.status, refused.problem.model_dump_json().encode(), tuple(headers))

    def _parse(self, path: str, query: bytes, version: bytes | None, body: bytes, received: float) -> PredictionRequest:
        rows = [self.schema.one(body)] if path == PREDICT else self.schema.many(body)
        pinned = self._pinned(version) if version else None
        return PredictionRequest(rows, received, pinned, bool(query) and self._explain(path, query))

    def _pinned(self, version: bytes) -> str:
        if not self._pinning:
            raise BadRequest(403, Problem(error="X-Perennial-Version: pinning is off (CT_SERVING_PINNING)"))
        return version.decode("latin-1").strip()

    def _explain(self, path: str, query: bytes) -> bool:
        wanted = parse_qs(query.decode("latin-1")).get("explain", ["false"])[-1].lower()
        if wanted not in ("true", "1", "false", "0"):
            raise BadRequest(422, Problem(error="explain: must be true or false", fields={"explain": "true or false"}))
        if wanted in ("false", "0"):
            return False
        if path != PREDICT:
            raise BadRequest(422, Problem(error="explain: one event at a time", fields={"explain": "not here"}))
        if not self._explaining:
            raise BadRequest(403, Problem(error="explain: explanations are off (CT_SERVING_EXPLAIN)"))
        return True
