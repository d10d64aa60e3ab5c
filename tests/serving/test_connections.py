"""What callers may send over a connection, over real sockets: floods of headers, half-open heads, trailers."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import uvicorn

from serving.compat import uvicorn as compat
from serving.compat.uvicorn import LimitedHttpToolsProtocol

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
HEADERS = b"".join(b"X-%d: %s\r\n" % (i, b"a" * 500) for i in range(100))


async def echo_header(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the header `x-secret` after the whole body has come."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    body = dict(scope["headers"]).get(b"x-secret", b"none")
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(echo_header, http=LimitedHttpToolsProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = server.force_exit = True
    thread.join(timeout=30)
    listening.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionError:
        pass
    return found


@pytest.mark.parametrize(
    ("start", "flood"),
    [
        (HEAD, HEADERS),
        (HEAD + b"X: ", b"a" * 50_000),
        (b"GET /", b"a" * 50_000),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD, HEADERS),
        (CHUNKED + b"1\r\na\r\n0\r\n", HEADERS),
        (CHUNKED + b"1\r\na\r\n0\r\nX: ", b"a" * 50_000),
        (CHUNKED + b"1;x=", b"a" * 50_000),
        (CHUNKED, (b"1;" + b"e" * 1000 + b"\r\na\r\n") * 50),
    ],
    ids=["headers", "a header", "path", "second head", "trailers", "a trailer", "extension", "extensions"],
)
def test_a_flood_closes_its_connection(port: int, start: bytes, flood: bytes) -> None:
    before = psutil.Process().memory_info().rss
    with connect(port) as connection, pytest.raises(ConnectionError):
        connection.sendall(start + flood * 1600)  # 80 MB
    assert psutil.Process().memory_info().rss - before < 40_000_000
    assert ask(port, HEAD + b"Content-Length: 0\r\n\r\n").endswith(b"none")


def ask(port: int, request: bytes) -> bytes:
    with connect(port) as connection:
        connection.sendall(request.replace(b"Host: x", b"Host: x\r\nConnection: close", 1))
        return read_all(connection)


def test_a_body_in_chunks_is_read_and_its_trailers_are_no_headers(port: int) -> None:
    answer = ask(port, CHUNKED + b"3\r\nabc\r\n0\r\nX-Secret: forged\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"none")
    small = b"".join(b"10\r\n" + b"a" * 16 + b"\r\n" for _ in range(20_000))
    assert ask(port, CHUNKED + small + b"0\r\n\r\n").endswith(b"none")


def test_a_slow_head_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "HEAD_SECONDS", 0.3)
    with connect(port) as silent, connect(port) as slow:
        began = time.monotonic()
        slow.sendall(HEAD)
        assert b"400" in read_all(slow)
        assert read_all(silent) == b""
        assert 0.2 < time.monotonic() - began < 20


def test_half_open_heads_give_way_to_new_connections(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "MAXIMUM_CONNECTIONS", 20)
    held = [connect(port) for _ in range(60)]
    try:
        for each in held:
            try:
                each.sendall(HEAD)
            except ConnectionError:
                continue
        assert ask(port, HEAD + b"Content-Length: 0\r\n\r\n").endswith(b"none")
        for each in held:
            each.settimeout(0.05)
        assert sum(is_open(each) for each in held) <= 20
    finally:
        for each in held:
            each.close()


def is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False
