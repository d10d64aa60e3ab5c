"""HTTP as callers speak it, well and badly, to the dispatcher in a real uvicorn.

The endpoint echoes the body. The application behind the dispatcher answers with a header that says who it is.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from serving import dispatcher
from serving.compat import uvicorn as compat
from serving.compat.uvicorn import LimitedHttpToolsProtocol
from serving.dispatcher import PredictionDispatcher
from serving.limits import MAXIMUM_BODY_BYTES
from serving.request import HttpResponse
from serving.schema import BadRequest
from testing.ports import free_port
from testing.waiting import eventually, listens
from training.settings import ROOT


class Echo:
    """Answers with the body that it got; while `held` is a list, an answer waits for its event in it."""

    def __init__(self) -> None:
        self.held: list[asyncio.Event] | None = None
        self.asked: list[bytes] = []
        self.refused: list[int] = []
        self.refusing: list[bytes] = []
        self.short = False

    async def answer(self, scope: Any, body: bytes, received: float) -> HttpResponse:
        seen = (scope["path"], scope["client"][0], received <= time.perf_counter())
        assert seen == ("/predict", "127.0.0.1", True)
        self.asked.append(body)
        self.loop = asyncio.get_running_loop()
        if body in self.refusing:
            return HttpResponse(422, b"refused")
        if self.held is not None:
            released = asyncio.Event()
            self.held.append(released)
            await released.wait()
        content = b"" if self.short else body + scope["query_string"]
        return HttpResponse(200, content, ((b"x-seen", dict(scope["headers"])[b"x-number"]),))

    def refuse(self, refused: BadRequest) -> HttpResponse:
        self.refused.append(refused.status)
        return HttpResponse(refused.status, b"refused")


async def behind(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = [(b"x-seen", b"behind"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Server:
    def __init__(self, echo: Echo) -> None:
        self.port, self.echo = free_port(), echo
        app, protocol = PredictionDispatcher(behind, {"/predict": echo}), LimitedHttpToolsProtocol
        config = uvicorn.Config(app, port=self.port, http=protocol, lifespan="off", log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        eventually(lambda: self.server.started)

    def run(self, work: Callable[[], None]) -> None:
        """In the server's thread."""
        self.echo.loop.call_soon_threadsafe(work)

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(10)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def server(echo: Echo) -> Iterator[Server]:
    made = Server(echo)
    yield made
    made.stop()


@pytest.fixture
def line(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        yield connection


def request(body: bytes, *headers: str, number: int = 1, path: str = "/predict", version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"X-Number: {number}", *headers]
    if not any(line.startswith("Transfer-Encoding") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(line: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next answer on the connection."""
    read = b""
    while b"\r\n\r\n" not in read:
        more = line.recv(1)
        assert more, f"the connection ended after {read!r}"
        read += more
    status, *lines = read.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines if each)}
    body = b""
    while len(body) < int(headers.get("content-length", 0)):
        body += line.recv(1)
    return int(status.split()[1]), headers, body


def ended(line: socket.socket) -> bool:
    return line.recv(1) == b""


def test_answers_one_after_another_on_a_connection(line: socket.socket) -> None:
    for number in range(3):
        line.sendall(request(b"%d" % number, number=number, path="/predict?a=b"))
        status, headers, body = answer(line)
        assert (status, body, headers["x-seen"]) == (200, b"%da=b" % number, str(number))
        assert {"date", "content-type"} <= headers.keys()


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_a_body_may_come_in_pieces(line: socket.socket, pause: float) -> None:
    content = request(b"abcdef")
    for i in range(len(content)):
        line.sendall(content[i : i + 1])
        time.sleep(pause if i > len(content) - 4 else 0)
    assert answer(line)[2] == b"abcdef"


@pytest.mark.parametrize("pieces", [1, 2])
def test_only_a_body_that_is_not_there_yet_needs_a_timer(
    line: socket.socket, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    seen = []

    def that_came(receive: Any) -> bytes | None:
        seen.append(compat.body_that_came(receive))
        return seen[-1]

    monkeypatch.setattr(dispatcher, "body_that_came", that_came)
    content = request(b"abcdef")
    half = len(content) - 3 if pieces == 2 else len(content)
    line.sendall(content[:half])
    time.sleep(0.1)
    line.sendall(content[half:])
    assert answer(line)[2] == b"abcdef"
    assert seen == [b"abcdef" if pieces == 1 else None]


def test_a_body_may_be_chunked(line: socket.socket) -> None:
    line.sendall(request(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))
    assert answer(line)[2] == b"abcde"


def test_requests_in_a_row_are_answered_in_their_order(echo: Echo, server: Server, line: socket.socket) -> None:
    echo.held = []
    line.sendall(request(b"first", number=1) + request(b"second", number=2))
    eventually(lambda: echo.held)
    echo.held, [first_held] = None, echo.held
    server.run(first_held.set)
    first, second = answer(line), answer(line)
    assert (first[2], first[1]["x-seen"]) == (b"first", "1")
    assert (second[2], second[1]["x-seen"], echo.asked) == (b"second", "2", [b"first", b"second"])
    line.sendall(request(b"third") + request(b"fourth"))
    assert [answer(line)[2], answer(line)[2]] == [b"third", b"fourth"]


@pytest.mark.parametrize(
    ("path", "headers", "seen"),
    [
        ("/predict", [], "1"),
        ("/models", [], "behind"),
        ("/%70redict", [], "1"),
        ("/predict", ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"], "1"),
    ],
)
def test_only_predictions_are_taken(line: socket.socket, path: str, headers: list[str], seen: str) -> None:
    line.sendall(request(b"", *headers, path=path))
    assert answer(line)[1]["x-seen"] == seen


def test_another_method_is_the_applications_affair(echo: Echo, line: socket.socket) -> None:
    line.sendall(request(b"").replace(b"POST", b"GET", 1))
    assert (answer(line)[1]["x-seen"], echo.asked) == ("behind", [])


def test_a_caller_that_waits_for_100_continue_gets_it(line: socket.socket) -> None:
    content = request(b"body", "Expect: 100-continue")
    line.sendall(content[:-4])
    assert answer(line)[0] == 100
    line.sendall(b"body")
    assert answer(line)[1]["x-seen"] == "1"


@pytest.mark.parametrize(("headers", "version"), [(["Connection: close"], "1.1"), ([], "1.0")])
def test_the_connection_ends_when_the_caller_wants_it(line: socket.socket, headers: list[str], version: str) -> None:
    line.sendall(request(b"x", *headers, version=version))
    assert answer(line)[1]["connection"] == "close"
    assert ended(line)


def test_a_body_that_is_too_long_is_refused(echo: Echo, line: socket.socket) -> None:
    head = request(b"", number=1).replace(b"Content-Length: 0", b"Content-Length: %d" % (2 * MAXIMUM_BODY_BYTES))
    line.sendall(head + b"x" * (MAXIMUM_BODY_BYTES + 1))
    status, headers, _ = answer(line)
    assert (status, headers["connection"], echo.asked, echo.refused) == (413, "close", [], [413])


def test_a_body_that_does_not_come_is_refused(echo: Echo, line: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "BODY_SECONDS", 0.2)
    line.sendall(request(b"abcdef")[:-1])
    status, headers, _ = answer(line)
    assert (status, headers["connection"], echo.asked, echo.refused) == (408, "close", [], [408])
    assert ended(line)


def test_who_leaves_in_between_costs_nothing(echo: Echo, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "BODY_SECONDS", 0.2)
    echo.held = []
    with socket.create_connection(("127.0.0.1", server.port)) as whole:
        whole.sendall(request(b"x"))
        eventually(lambda: echo.held)
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(request(b"abcdef")[:-1])
        eventually(lambda: server.server.server_state.connections)
    eventually(lambda: not server.server.server_state.connections)
    server.run(echo.held.pop().set)
    time.sleep(0.4)
    echo.held = None
    with socket.create_connection(("127.0.0.1", server.port)) as next_one:
        next_one.sendall(request(b"next"))
        assert answer(next_one)[2] == b"next"
    assert (echo.asked, echo.refused) == ([b"x", b"next"], [])


def test_a_caller_that_is_cut_off_does_not_harm_the_others(
    echo: Echo, server: Server, line: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    echo.held = []
    line.sendall(request(b"stranger"))
    eventually(lambda: echo.held)
    with socket.create_connection(("127.0.0.1", server.port)) as bad:
        bad.sendall(request(b"one") + request(b"two") + b"GARBAGE\r\n\r\n")
        eventually(lambda: len(echo.held or []) == 2)
        assert b"400 Bad Request" in bad.recv(1000)
    one, *_ = echo.held[1:]
    server.run(one.set)
    server.run(echo.held[0].set)
    assert answer(line)[2] == b"stranger"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_behind_a_refusal_nothing_is_read(echo: Echo, line: socket.socket) -> None:
    head = request(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % (MAXIMUM_BODY_BYTES + 1))
    line.sendall(head + b"x" * (MAXIMUM_BODY_BYTES + 1) + request(b"behind it"))
    assert answer(line)[0] == 413
    time.sleep(0.1)
    assert echo.asked == []


def test_a_request_that_takes_longer_than_the_keep_alive_is_answered(echo: Echo, server: Server) -> None:
    server.server.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as patient:
        echo.refusing = [b"bad"]
        echo.held = []
        patient.sendall(request(b"bad") + request(b"good"))
        assert answer(patient)[0] == 422
        eventually(lambda: echo.held)
        time.sleep(0.5)
        server.run(echo.held[0].set)
        assert answer(patient)[2] == b"good"


def test_a_body_of_very_many_chunks_is_read_in_linear_time(echo: Echo, line: socket.socket) -> None:
    def seconds(chunks: int) -> float:
        content = request(b"1\r\nx\r\n" * chunks + b"0\r\n\r\n", "Transfer-Encoding: chunked")
        began = time.perf_counter()
        line.sendall(content)
        assert answer(line)[0] == 200
        return time.perf_counter() - began

    seconds(1_000)
    echo.short = True
    few, many = (min(seconds(chunks) for _ in range(3)) for chunks in (25_000, 200_000))
    assert many < 32 * few  # eight times as many; sixty-four times the time, were all copied for each
    assert len(echo.asked[-1]) == 200_000


def test_at_the_end_what_was_taken_is_answered(echo: Echo, server: Server, line: socket.socket) -> None:
    echo.held = []
    line.sendall(request(b"last"))
    eventually(lambda: echo.held)
    server.server.should_exit = True
    eventually(lambda: not listens(server.port))
    server.run(echo.held[0].set)
    status, headers, body = answer(line)
    assert (status, headers["connection"], body) == (200, "close", b"last")
    assert ended(line)
    server.thread.join(5)
    assert not server.thread.is_alive()


def test_a_head_that_does_not_come_ends_the_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "HEAD_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
        assert (answer(slow)[0], ended(slow)) == (400, True)


def test_a_connection_without_a_request_is_closed_and_gets_no_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that opened it in advance would take a 400 for the answer to its first request."""
    monkeypatch.setattr(compat, "HEAD_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as unused:
        assert unused.recv(1) == b""


def test_a_second_head_that_does_not_come_ends_the_connection(
    line: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.sendall(request(b"first"))
    assert answer(line)[2] == b"first"
    monkeypatch.setattr(compat, "HEAD_SECONDS", 2.0)  # Longer than sending takes on a busy machine.
    for byte in b"POST /pre":
        line.sendall(bytes([byte]))
        time.sleep(0.02)
    assert (answer(line)[0], ended(line)) == (400, True)


def test_a_connection_that_goes_on_longer_than_a_head_may_take_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "HEAD_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        for _ in range(5):
            line.sendall(request(b"x"))
            assert answer(line)[2] == b"x"
            time.sleep(0.15)


def test_a_head_that_is_too_large_ends_the_connection(echo: Echo, line: socket.socket) -> None:
    line.sendall(b"POST /predict HTTP/1.1\r\nX-Large: " + b"x" * compat.MAXIMUM_HEAD_BYTES)
    assert (answer(line)[0], ended(line), echo.asked) == (400, True, [])


def test_a_large_body_does_not_count_as_head(echo: Echo, line: socket.socket) -> None:
    echo.short = True
    for _ in range(2):
        line.sendall(request(b"x" * MAXIMUM_BODY_BYTES))
        assert answer(line)[0] == 200


def test_a_body_and_the_beginning_of_the_next_head_in_one_read(
    line: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "MAXIMUM_HEAD_BYTES", 500)  # So that all of it arrives in one read.
    body, second = b"x" * 1000, request(b"second")
    line.sendall(request(body) + second[:20])
    assert answer(line)[2] == body
    line.sendall(second[20:])
    assert answer(line)[2] == b"second"


@pytest.mark.parametrize("method", ["HEAD", "PUT", "OPTIONS"])
def test_unknown_methods_go_to_the_application_behind(echo: Echo, line: socket.socket, method: str) -> None:
    line.sendall(request(b"").replace(b"POST", method.encode(), 1))
    assert (answer(line)[1]["x-seen"], echo.asked) == ("behind", [])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of its own says of the service that it has built."""
    code = """
import json, sys
import uvicorn
import serving.model_hosts
from serving.service import Service
from training.adapters.features import Features
from training.contract.model_spec import load_model_spec
from training.settings import load_settings
config = uvicorn.Config(Service.to_asgi(), log_config=None)
config.load()
settings = load_settings()
Features(settings, load_model_spec("card_fraud", settings.models_dir, settings.feature_repo)).names()
print(json.dumps({
    "protocol": config.http_protocol_class.__name__,
    "first": type(config.loaded_app.app).__name__,
    "trusted": config.forwarded_allow_ips,
    "training": sorted({"torch", "sklearn", "airflow", "training.steps"} & set(sys.modules)),
}))
"""
    folder = str(tmp_path_factory.mktemp("built"))
    env = os.environ | {"CT_HOME": folder, "BENTOML_HOME": folder, "BENTOML_DO_NOT_TRACK": "true"}
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=env, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.ci
def test_bentoml_runs_the_dispatcher_first_and_no_caller_can_forge_its_address(built: dict[str, Any]) -> None:
    assert (built["protocol"], built["first"]) == (LimitedHttpToolsProtocol.__name__, PredictionDispatcher.__name__)
    assert built["trusted"] == ""


@pytest.mark.ci
def test_the_service_loads_no_training_library(built: dict[str, Any]) -> None:
    assert built["training"] == []


def test_importing_the_service_builds_nothing() -> None:
    code = "import sys, serving.service; print(sorted({'bentoml', 'fastapi', 'serving.app'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
