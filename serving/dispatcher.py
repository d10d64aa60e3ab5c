"""The ASGI application that uvicorn calls: it answers predictions itself and leaves all else to BentoML's application.

BentoML's middlewares (OpenTelemetry, metrics, access log, timeouts, context) cost ten times what a prediction costs.
Predictions have metrics, deadlines and limits of their own.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from serving.compat.uvicorn import body_that_came, send_whole
from serving.endpoint import Endpoint, refusal
from serving.limits import BODY_SECONDS, check_length, late
from serving.request import HttpResponse
from serving.schema import BadRequest, Problem


class PredictionDispatcher:
    """`app` is BentoML's ASGI application, which also starts and stops the service.

    `endpoints`: path → who answers POST requests to it.
    """

    def __init__(self, app: Any, endpoints: Mapping[str, Endpoint]) -> None:
        self._app, self._endpoints = app, endpoints

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            if scope["type"] == "http" and "\n" in scope["path"]:
                # Starlette's Mount, under which our routes are, does not match it, and answers with text.
                problem = Problem(error="No path of this service has a line break")
                await respond(send, refusal(BadRequest(404, problem)))
                return
            await self._app(scope, receive, send)
            return
        received = time.perf_counter()
        try:
            body = body_that_came(receive)
            if body is None:
                body = await read_body(receive)
            else:
                check_length(body)
        except BadRequest as refused:
            response = endpoint.refuse(refused)
            # The rest of the body is not read, so the connection cannot be used again.
            response = response._replace(headers=(*response.headers, (b"connection", b"close")))
        else:
            if body is None:
                return
            # While the body came, another host may have taken over the model.
            endpoint = self._endpoints.get(scope["path"], endpoint)
            response = await endpoint.answer(scope, body, received)
        await respond(send, response)


async def read_body(receive: Any) -> bytes | None:
    """The body of a request; None when the caller disconnects before it is whole.

    Raises BadRequest: 413 when it has more than MAXIMUM_BODY_BYTES, 408 when it takes longer than BODY_SECONDS.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(receive)
    except TimeoutError:
        raise late() from None


async def _read(receive: Any) -> bytes | None:
    body = bytearray()
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        check_length(body)
        if not message.get("more_body", False):
            return bytes(body)
    return None


async def respond(send: Any, response: HttpResponse) -> None:
    """Send `response`. uvicorn adds the date, and writes nothing when the caller is gone."""
    status, content, more, content_type = response
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(content)), *more]
    start = {"type": "http.response.start", "status": status, "headers": headers}
    await send_whole(send, start, {"type": "http.response.body", "body": content})
