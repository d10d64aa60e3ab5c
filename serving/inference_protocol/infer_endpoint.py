"""`POST /v2/models/{model}/infer`: predictions of one model by the Open Inference Protocol."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from serving.auth import Auth
from serving.endpoint import ModelEndpoint, Prepared, refusal
from serving.inference_protocol.infer_request import InferRequestParser
from serving.inference_protocol.infer_response import InferResponseWriter
from serving.request import OCTETS, HttpResponse
from serving.schema import BadRequest, Problem
from training.contract.predictions import Prediction
from training.settings import ServingSettings

if TYPE_CHECKING:
    from serving.model_host import ModelHost

INFER = "/infer"
LENGTH_HEADER = b"inference-header-content-length"


class InferEndpoint(ModelEndpoint):
    """The same predictions as those of `/predict_batch`: the same limits, log and signals."""

    operation = INFER

    def __init__(self, host: "ModelHost", auth: Auth, settings: ServingSettings) -> None:
        super().__init__(host, auth, settings)
        self._parser = InferRequestParser(host.spec, host.schema)
        self.writer = InferResponseWriter(host.spec)

    def refuse(self, refused: BadRequest) -> HttpResponse:
        return protocol_error(super().refuse(refused), refused)

    def _prepare(self, query: bytes, headers: Mapping[bytes, bytes], body: bytes) -> Prepared:
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise BadRequest(415, Problem(error="Content-Encoding: compressed bodies are not supported"))
        request = self._parser.parse(body, headers.get(LENGTH_HEADER))
        self.writer.check(request)

        def respond(predictions: list[Prediction]) -> HttpResponse:
            content, header_length = self.writer.write(request, predictions)
            if header_length is None:
                return HttpResponse(200, content)
            return HttpResponse(200, content, ((LENGTH_HEADER, b"%d" % header_length),), OCTETS)

        return request.rows, False, respond


def protocol_error(response: HttpResponse, refused: BadRequest) -> HttpResponse:
    """`response` with the protocol's body."""
    return response._replace(content=orjson.dumps({"error": refused.problem.error}))


def protocol_refusal(refused: BadRequest) -> HttpResponse:
    """The response that says why there is no answer, in the protocol's form."""
    return protocol_error(refusal(refused), refused)


def as_json(content: Mapping[str, Any] | list[Any], status: int = 200) -> HttpResponse:
    return HttpResponse(status, orjson.dumps(content))
