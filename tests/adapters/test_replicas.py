"""The status of replicas, and one URL for many of them: a name is resolved again for every status check."""

import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from training.adapters.replica_urls import expand
from training.adapters.replicas import Replicas
from training.contract.errors import StepError, TransientError
from training.contract.replicas import LoadedVersion, ReplicaModels
from training.contract.signals import Signals

SOURCE, MODEL = "card_payments", "card_fraud"


class Fleet:
    """Replicas on addresses of the loopback network and one port, behind the name `replicas`."""

    def __init__(self) -> None:
        self.served = {"127.0.0.1": 1, "127.0.0.2": 1}
        self.named = list(self.served)
        #: Set when the first request has come.
        self.asked = threading.Event()
        #: What GET /models/card_fraud answers instead.
        self.answer = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.set()
                address = self.connection.getsockname()[0]
                self.send_response(200)
                self.end_headers()
                self.wfile.write(
                    (outer.signals if self.path == f"/models/{MODEL}/signals" else outer.models)(address).encode()
                )

            def log_message(self, *_: Any) -> None: ...

        self._handler = Handler
        self.servers = [self._listen("127.0.0.1", 0)]
        self.port = self.servers[0].server_port
        self.servers.append(self._listen("127.0.0.2", self.port))
        self.url = f"dns+http://replicas:{self.port}"

    def models(self, address: str) -> str:
        champion = LoadedVersion(version=self.served[address], digest="d", since=datetime(2026, 1, 5, tzinfo=UTC))
        models = ReplicaModels(model=MODEL, replica=address, models={"champion": champion})
        return self.answer or models.model_dump_json()

    def signals(self, address: str) -> str:
        return Signals(replica=address, champion=self.served[address]).model_dump_json()

    def _listen(self, address: str, port: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer((address, port), self._handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def resolve(self, system: Callable[..., Any]) -> Callable[..., Any]:
        """The system's resolver, which also knows `replicas`."""

        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "replicas":
                return system(host, *args, **kwargs)
            if not self.named:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            # Twice, as a resolver may.
            return [found for address in self.named * 2 for found in system(address, *args, **kwargs)]

        return getaddrinfo


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    try:
        fleet = Fleet()
    except OSError as error:
        pytest.skip(f"127.0.0.2 cannot be bound here: {error}")
    monkeypatch.setattr(socket, "getaddrinfo", fleet.resolve(socket.getaddrinfo))
    yield fleet
    for server in fleet.servers:
        server.shutdown()
        server.server_close()


def test_a_plain_url_is_itself() -> None:
    assert expand("http://a:3000") == ["http://a:3000"]


@pytest.mark.parametrize("url", ["dns+http://replicas", "dns+https://replicas:3000", "dns+http://:3000"])
def test_what_cannot_be_expanded_is_said(url: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        expand(url)


def test_a_name_is_all_of_its_addresses(fleet: Fleet) -> None:
    assert expand(fleet.url) == [f"http://127.0.0.1:{fleet.port}", f"http://127.0.0.2:{fleet.port}"]
    statuses = Replicas([fleet.url], MODEL).statuses()
    assert [(each.replica, each.version) for each in statuses] == [("127.0.0.1", 1), ("127.0.0.2", 1)]


def test_a_name_without_addresses_is_a_replica_that_does_not_serve(fleet: Fleet) -> None:
    fleet.named = []
    (status,) = Replicas([fleet.url], MODEL).statuses()
    assert status.version is None
    assert "leads to no replica" in str(status)
    with pytest.raises(TransientError, match="leads to no replica"):
        Replicas([fleet.url], MODEL).wait_until_served(1, timeout=0.1)


def test_a_rollout_waits_for_those_that_come_and_not_for_those_that_go(fleet: Fleet) -> None:
    fleet.served = {"127.0.0.1": 1, "127.0.0.2": 2}

    def replace() -> None:
        fleet.asked.wait()
        fleet.named = ["127.0.0.2"]

    thread = threading.Thread(target=replace, daemon=True)
    thread.start()
    statuses = Replicas([fleet.url], MODEL).wait_until_served(2, timeout=120)
    thread.join()
    assert [each.replica for each in statuses] == ["127.0.0.2"]
    fleet.named = ["127.0.0.1", "127.0.0.2"]
    with pytest.raises(TransientError, match="serves version 1"):
        Replicas([fleet.url], MODEL).wait_until_served(2, timeout=0.3)


#: What a replica of the image before this one answers. It says `slots` where `models` is said now.
OLDER = """{"model": "card_fraud", "replica": "r", "slots": {"champion": {"version": 1, "digest": "d",
"since": "2026-01-05T00:00:00.250000+00:00"}},
"traffic": {"mode": "full", "weight": 0.0, "stage": "", "experiment": ""},
"refused": {"2": {"reason": "Golden rows differ by 0.1", "at": "2026-01-05T00:00:00+00:00"}},
"problem": "card_fraud version 2 is refused: Golden rows differ by 0.1"}"""


def test_a_replica_of_an_older_image_is_understood(fleet: Fleet) -> None:
    fleet.answer = OLDER
    status = Replicas([fleet.url], MODEL).statuses(signals=True)[0]
    assert (status.replica, status.version, status.since) == ("r", 1, datetime(2026, 1, 5, 0, 0, 0, 250000, UTC))
    assert status.refused[2].reason == "Golden rows differ by 0.1"
    with pytest.raises(StepError, match="refuses card_fraud version 2: Golden rows differ"):
        Replicas([fleet.url], MODEL).wait_until_served(2, timeout=120)


def test_what_a_newer_replica_says_besides_is_ignored(fleet: Fleet) -> None:
    fleet.answer = OLDER.replace("slots", "models").replace('"digest"', '"colour": "red", "digest"')
    assert Replicas([fleet.url], MODEL).statuses()[0].version == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("<html>", "not that of a prediction service: body: Invalid JSON"),
        ("[]", "not that of a prediction service: body"),
        ('{"model": "card_fraud", "replica": "r"}', "not that of a prediction service: models: Field required"),
        (OLDER.replace("card_fraud", "other"), "a service of model other, not card_fraud"),
    ],
)
def test_another_answer_is_a_problem(fleet: Fleet, answer: str, problem: str) -> None:
    fleet.answer = answer
    status = Replicas([fleet.url], MODEL).statuses()[0]
    assert (status.version, problem in str(status)) == (None, True), status
