"""The private parts of libraries that serving uses are still where they were."""

import asyncio
import logging
import random
from typing import Any

import pytest
import uvicorn
from prometheus_client import CollectorRegistry, Histogram
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving.compat.prometheus import observe_many
from serving.compat.uvicorn import LimitedHttpToolsProtocol, limit_request_heads, send_whole


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


def test_uvicorn_chooses_the_protocol_with_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    limit_request_heads()
    config = uvicorn.Config(app, log_config=None)
    config.load()
    assert config.http_protocol_class is LimitedHttpToolsProtocol


@pytest.mark.parametrize(
    "name",
    [
        *("send_400_response", "on_message_begin", "on_headers_complete", "on_body"),
        *("_start_asgi_task", "connection_made", "connection_lost"),
    ],
)
def test_the_protocol_overrides_or_uses_what_uvicorn_has(name: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name))


def test_no_middleware_of_uvicorn_reads_forged_addresses_before_ours() -> None:
    config = uvicorn.Config(app, log_config=None, forwarded_allow_ips="*")
    config.load()
    assert config.loaded_app is not app, "uvicorn wraps the application"
    loop = asyncio.new_event_loop()
    try:
        assert LimitedHttpToolsProtocol(config, ServerState(), {}, loop).app is app
    finally:
        loop.close()


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_uvicorn_makes_no_line_of_its_access_log_that_nobody_gets(
    level: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written: list[Any] = []
    monkeypatch.setattr(httptools_impl, "get_path_with_query_string", written.append)
    caplog.set_level(level, "uvicorn.access")
    asyncio.run(_answered(uvicorn.Config(_answer_the_path, log_config=None)))
    assert bool(written) is (level == logging.INFO)


class RecordingTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False


async def _answer_the_path(scope: Any, receive: Any, send: Any) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
    await send_whole(send, start, {"type": "http.response.body", "body": scope["path"].encode()})


async def _answered(config: uvicorn.Config) -> list[bytes]:
    """What is written to a connection that asks for /one and for /two."""
    protocol = LimitedHttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    transport = RecordingTransport()
    protocol.connection_made(transport)
    for path in (b"/one", b"/two"):
        protocol.data_received(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.01)
    return transport.written


def test_head_and_body_of_a_response_are_written_at_once() -> None:
    one, two = asyncio.run(_answered(uvicorn.Config(_answer_the_path, log_config=None)))
    assert one.startswith(b"HTTP/1.1 200 OK\r\n")
    assert one.endswith(b"\r\n\r\n/one")
    assert two.endswith(b"\r\n\r\n/two")


def test_many_observations_at_once_are_those_made_one_by_one() -> None:
    registry = CollectorRegistry()
    buckets = (0.1, 0.5, 1.0)
    one_by_one, at_once = (Histogram(name, name, buckets=buckets, registry=registry) for name in ("one", "many"))
    random.seed(0)
    values = [0.1, 0.5, 1.0, 7.0, *(random.random() * 1.5 for _ in range(100))]
    for value in values:
        one_by_one.observe(value)
    observe_many(at_once, values)
    for suffix in ("_sum", "_count"):
        assert abs(registry.get_sample_value(f"one{suffix}") - registry.get_sample_value(f"many{suffix}")) < 1e-9
    for bound in (*map(str, buckets), "+Inf"):
        assert registry.get_sample_value("one_bucket", {"le": bound}) == registry.get_sample_value(
            "many_bucket", {"le": bound}
        )
