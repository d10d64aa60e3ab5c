"""In front of BentoML's application: predictions go straight to the answerer, all else through BentoML.

BentoML's worker gives uvicorn a Starlette application in middlewares for OpenTelemetry, metrics, access log, timeouts
and its context, each of which wraps every message of a request; together they cost ten times what a prediction does.
Predictions have metrics, deadlines and limits of their own, so they pass by.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import bentoml

from serving.routes import PREDICT, PREDICT_BATCH, Answer, Answerer
from serving.schema import MAXIMUM_BODY_BYTES, BadRequest, Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: So long may a caller take to send its body.
BODY_SECONDS = 10.0


class Front:
    """An ASGI application around BentoML's."""

    def __init__(self, behind: App, answerer: Answerer) -> None:
        self._behind, self._answerer = behind, answerer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (PREDICT, PREDICT_BATCH) or scope["method"] != "POST":
            await self._behind(scope, receive, send)
            return
        received = time.perf_counter()
        headers = dict(scope["headers"])
        client = scope.get("client")
        try:
            body = await _body(receive)
        except BadRequest as refused:
            status, content, more = self._answerer.refuse(refused)
            more = [*more, (b"connection", b"close")]
        else:
            peer, query = client[0] if client else None, scope["query_string"]
            status, content, more = await self._answerer.answer(scope["path"], body, headers, query, peer, received)
        await _send(send, (status, content, more))


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body = message.get("body", b"")
    if not message.get("more_body", False):
        return _short(body)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            parts = bytearray(body)
            while message.get("more_body", False):
                message = await receive()
                parts += _short(message.get("body", b""))
                _short(parts)
            return bytes(parts)
    except TimeoutError:
        raise BadRequest(408, Problem(error=f"body: not sent within {BODY_SECONDS:g} s")) from None


def _short(body: Any) -> Any:
    if len(body) > MAXIMUM_BODY_BYTES:
        raise BadRequest(413, Problem(error=f"body: more than {MAXIMUM_BODY_BYTES} bytes"))
    return body


async def _send(send: Send, answer: Answer) -> None:
    status, content, more = answer
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class FrontedService(bentoml.Service):  # type: ignore[misc]
    """A BentoML service whose class has an `answerer`, which takes the predictions."""

    def to_asgi(self, is_main: bool = True) -> Any:
        return Front(super().to_asgi(is_main), self.inner.answerer)
