"""In front of BentoML's application: a prediction is answered where its last byte is read, all else goes to BentoML.

BentoML's worker gives uvicorn a Starlette application in middlewares for OpenTelemetry, metrics, access log, timeouts
and its context; together they cost ten times what a prediction does. uvicorn's own way to an application, ASGI's
messages, costs a fifth of one. Predictions have metrics, deadlines and limits of their own, so they pass by both.
"""

import asyncio
import os
import time
from asyncio.events import TimerHandle
from functools import partial
from typing import Any

import bentoml
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.limits import BODY_SECONDS, check_length, late
from serving.routes import PREDICT, PREDICT_BATCH, Answer, Answerer, Call
from serving.schema import BadRequest

PATHS = {b"/predict": PREDICT, b"/predict_batch": PREDICT_BATCH}


class Exchange:
    """A prediction's request and answer; to uvicorn what its own RequestResponseCycle is."""

    #: uvicorn sets it when a connection ends; nobody waits for it here.
    message_event = asyncio.Event()

    def __init__(self, path: str, query: bytes, headers: list[tuple[bytes, bytes]], keep_alive: bool) -> None:
        self.path, self.query, self.headers, self.keep_alive = path, query, headers, keep_alive
        self.body = bytearray()
        self.received = time.perf_counter()
        self.whole = self.response_complete = self.disconnected = False
        self.timer: TimerHandle | None = None

    @property
    def refused(self) -> bool:
        """Answered before it was whole; what follows on the connection is not read."""
        return self.response_complete and not self.whole

    def end(self) -> None:
        """No more of the body will come, or is wanted."""
        if self.timer is not None:
            self.timer.cancel()


class PredictionProtocol(HttpToolsProtocol):
    """uvicorn's protocol, except for predictions.

    What is unusual about one, as that the request before it on the connection is not answered yet, makes it go
    BentoML's way, which ends at the same answerer.
    """

    answerer: Answerer
    #: The exchange that is going on, from a prediction's head to its answer.
    exchange: Exchange | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.exchange is not None:
            self.exchange.disconnected = True
            self.exchange.end()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        exchange = self.exchange
        if exchange is not None and not exchange.whole and not exchange.response_complete and exchange.timer is None:
            exchange.timer = self.loop.call_later(BODY_SECONDS, self._refuse, exchange, late())

    def on_headers_complete(self) -> None:
        if self.exchange is not None and self.exchange.refused:
            return
        path, _, query = self.url.partition(b"?")
        if path not in PATHS or self.parser.get_method() != b"POST" or self._is_unusual():
            super().on_headers_complete()
            return
        self._unset_keepalive_if_required()
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        self.exchange = Exchange(PATHS[path], query, self.headers, keep_alive)
        self.cycle = self.exchange  # type: ignore[assignment]

    def _is_unusual(self) -> bool:
        before = self.cycle is not None and not self.cycle.response_complete
        return before or self.expect_100_continue or self.parser.should_upgrade() or self.flow.write_paused

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        if exchange is None or exchange.whole:
            super().on_body(body)
        elif not exchange.refused:
            exchange.body += body
            try:
                check_length(exchange.body)
            except BadRequest as refused:
                self._refuse(exchange, refused)

    def on_message_complete(self) -> None:
        exchange = self.exchange
        if exchange is None or exchange.whole:
            super().on_message_complete()
        elif not exchange.refused:
            exchange.whole = True
            exchange.end()
            peer = self.client[0] if self.client else None
            headers, body = dict(exchange.headers), bytes(exchange.body)
            call = Call(exchange.path, exchange.query, headers, body, peer, exchange.received)
            self.answerer.answer(call, partial(self._send, exchange))

    def _refuse(self, exchange: Exchange, refused: BadRequest) -> None:
        """Answer before the body has come."""
        exchange.end()
        exchange.keep_alive = False
        self._send(exchange, self.answerer.refuse(refused))

    def _send(self, exchange: Exchange, answer: Answer) -> None:
        exchange.response_complete = True
        if exchange.disconnected or self.transport.is_closing():
            return
        status, content, headers = answer
        lines = [*self.server_state.default_headers, (b"content-type", b"application/json"), *headers]
        if not exchange.keep_alive:
            lines.append((b"connection", b"close"))
        head = b"".join([b"%b: %b\r\n" % line for line in lines])
        self.transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], head, len(content), content))
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()


class FrontedService(bentoml.Service):  # type: ignore[misc]
    """A BentoML service whose class has an `answerer`, which takes the predictions."""

    def to_asgi(self, is_main: bool = True) -> Any:
        protocol = type("Protocol", (PredictionProtocol,), {"answerer": self.inner.answerer})
        HTTP_PROTOCOLS["auto"] = protocol  # type: ignore[assignment]  # BentoML lets uvicorn choose
        # Who called is who is connected, for predictions and the rest alike: nobody may say that he is another.
        os.environ["FORWARDED_ALLOW_IPS"] = ""
        return super().to_asgi(is_main)
