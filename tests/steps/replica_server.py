"""Replicas that answer as the prediction service does and follow the registry, or do not, and count what they are told.

MLflow is real (SQLite). The same steps against the real service are in tests/serving.
"""

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from training.adapters.registry import Registry
from training.contract.signals import PairSignals, Signals, VersionSignals
from training.contract.traffic import Desired, desired

MODEL = "card_fraud"


class Replica:
    """Answers GET /models and /signals. It serves what `registry` asks for unless told otherwise."""

    def __init__(self, registry: Registry) -> None:
        self.stuck_at: int | None = None
        self.refuses: int | None = None
        self.model = MODEL
        #: What each look at its signals finds more of, while there is a challenger.
        self.versions: dict[int, VersionSignals] = {}
        self.pair = PairSignals()
        #: The states of traffic that it has been in.
        self.history: list[Desired] = []
        self._since = datetime.now(UTC)
        self._registry, self._served = registry, None
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"/models": outer.models, "/signals": outer.signals}[self.path]()).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def models(self) -> dict[str, Any]:
        with self._lock:
            wanted, refused = self._registry.state(MODEL).aliases.get("champion"), {}
            if wanted is not None and wanted == self.refuses:
                refused = {str(wanted): {"reason": "Golden rows differ by 0.1", "at": "2026-01-05T00:00:00+00:00"}}
            else:
                self._served = self.stuck_at or wanted
        served = {"version": self._served, "digest": "d", "since": "2026-01-05T00:00:00+00:00"}
        slots = {"champion": served} if self._served else {}
        return {"model": self.model, "replica": "r", "slots": slots, "refused": refused, "problem": None}

    def signals(self) -> dict[str, Any]:
        with self._lock:
            state = self._registry.state(MODEL)
            challenger = state.aliases.get("challenger")
            asked, _ = desired(state.tags, challenger is not None)
            if not self.history or self.history[-1] != asked:
                self.history.append(asked)
                self._since = datetime.now(UTC)
            return Signals(
                replica="r",
                traffic=asked,
                champion=self._served,
                challenger=challenger,
                since=self._since,
                versions=self.versions,
                pair=self.pair,
            ).model_dump(mode="json")
