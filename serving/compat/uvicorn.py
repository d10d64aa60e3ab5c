"""uvicorn's httptools protocol with limits that it lacks: on the size of a request's head and the time it may take, on
what comes with a body in chunks, and on connections.

uvicorn's h11 protocol has the first limit, but takes three times the CPU (docs/adr/0014). `send_whole` saves a call of
the kernel for each response.

Private parts: `HTTP_PROTOCOLS`, because BentoML leaves the choice of the protocol to uvicorn; `send_400_response`; that
the parser calls `on_message_begin`, `on_headers_complete`, `on_body` and `on_message_complete` for each request, and
that headers and trailers are appended to `headers`; `app`; `access_log`; `connections`; `_start_asgi_task`;
`Server.capture_signals`; that `receive` and `send` are methods of the request's cycle, that its `body` is whole
once its `more_body` is False, that it is `disconnected` once the caller is gone, and that `send` writes the head and
the body of a response to its `transport`.
"""

import logging
from asyncio.events import TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: A head of more bytes is refused. It is measured whenever a read ends within the head, as h11 does. Of a read in which
#: an earlier request ends, nothing counts, because the head's part is not known.
MAXIMUM_HEAD_BYTES = 64 * 1024
#: Seconds from the connection, or from the first byte of a later head, until a head must be complete.
HEAD_SECONDS = 10.0
#: Connections at a time. A new one takes the place of one that waits for a head. Many systems allow a process 1,024
#: open files, of which models, logs and the online store need some.
MAXIMUM_CONNECTIONS = 512


class _ClosedHeaders(list[tuple[bytes, bytes]]):
    """The headers of a request whose head is complete. What uvicorn appends then is a trailer, and is dropped."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        pass


class LimitedHttpToolsProtocol(HttpToolsProtocol):
    """Counts bytes and time until the head of a request is complete, and closes the connection at the limit."""

    _in_head = False
    _head_bytes = 0
    #: Of the body under way: its bytes, and those of its chunks' heads, extensions and trailers.
    _body_bytes = _framing_bytes = 0
    #: Bytes of bodies in the newest read.
    _read_body_bytes = 0
    _message_ended = False
    _head_timer: TimerHandle | None = None
    #: The request that is being answered; `cycle` is the one that was read last.
    _answering: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # It would read X-Forwarded-For, which serving ignores, and costs a coroutine for each request.
        if isinstance(self.app, ProxyHeadersMiddleware):
            self.app = self.app.app
        # BentoML's handlers make uvicorn write a line of its access log for each request, which no level lets through.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
        super().connection_made(transport)
        if len(self.connections) > MAXIMUM_CONNECTIONS:
            waiting = (each for each in self.connections if getattr(each, "_head_timer", None) is not None)
            next(waiting, self).transport.close()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse_head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        if self._answering is not None and not self._answering.response_complete:
            # uvicorn tells `cycle` only. An earlier request would be answered to a closed connection: an error.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._message_ended, self._read_body_bytes = False, 0
        super().data_received(data)
        if self._in_head:
            self._head_bytes += 0 if self._message_ended else len(data)
            if self._head_bytes > MAXIMUM_HEAD_BYTES:
                self._refuse_head()
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse_head)
        elif not self._message_ended:
            self._body_bytes += self._read_body_bytes
            self._framing_bytes += len(data) - self._read_body_bytes
            # The smallest chunk has one byte and a frame of five.
            if self._framing_bytes > MAXIMUM_HEAD_BYTES + 5 * self._body_bytes:
                self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._end_head()
        self._body_bytes = self._framing_bytes = 0
        # The request keeps the list that it has. uvicorn would add trailers to it, which nothing has checked.
        self.headers = _ClosedHeaders(self.headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._read_body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._message_ended = True
        super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _end_head(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self) -> None:
        in_head = self._in_head
        self._end_head()
        if self.transport.is_closing():
            return
        if in_head and (self.cycle is None or self.cycle.response_complete):
            self.send_400_response("The head of the request is too large or takes too long.")
        else:
            # Nothing was asked yet, or an answer here would come before that of the request under way.
            self.transport.close()


class _HeadFirst:
    """A transport for one response: keeps the head until the body comes, so that the kernel gets both in one call."""

    def __init__(self, transport: Any) -> None:
        self._transport, self._head = transport, b""
        self.close, self.is_closing = transport.close, transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head:
            self._transport.write(self._head + data)
        else:
            self._head = data


async def send_whole(send: Any, start: dict[str, Any], body: dict[str, Any]) -> None:
    """`send` both ASGI messages of a response. uvicorn writes them to the connection at once."""
    cycle = getattr(send, "__self__", None)
    if cycle is not None:
        cycle.transport = _HeadFirst(cycle.transport)
    await send(start)
    await send(body)


def body_that_came(receive: Any) -> bytes | None:
    """The whole body, when it has arrived already; None when it has not, or that is unknown.

    In place of `receive()`, whose coroutine and event cost more than all else that reads a body.
    """
    cycle: Any = getattr(receive, "__self__", None)
    return None if getattr(cycle, "more_body", True) or cycle.disconnected else bytes(cycle.body)


class QuietServer(uvicorn.Server):
    """A second server in the process of another: signals are the first one's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_config(app: Any) -> uvicorn.Config:
    """The settings of a further server of `app`, which another server has started."""
    return uvicorn.Config(
        app,
        http=LimitedHttpToolsProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )


def limit_request_heads() -> None:
    """Make uvicorn choose LimitedHttpToolsProtocol where its configuration names no protocol."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{LimitedHttpToolsProtocol.__name__}"
