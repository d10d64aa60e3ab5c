"""Replicas that answer as the prediction service does. They follow the registry, or not, and count what a test says.

MLflow is real (SQLite). The same steps against the real service are in tests/serving.
"""

import sqlite3
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from training.adapters.registry import ModelState, Registry
from training.contract.replicas import LoadedVersion, Refusal, ReplicaModels
from training.contract.signals import PairSignals, Signals, VersionSignals
from training.contract.traffic import Desired, FirstLoad, desired

SOURCE, MODEL = "card_payments", "card_fraud"
MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)


class Replica:
    """Answers GET for the model and its signals. It serves what `registry` asks for, unless a test sets a field.

    It is asked many times for one change of the registry, whose `database` says whether there was one.
    """

    def __init__(self, registry: Registry, database: Path, name: str = "r") -> None:
        self.name = name
        #: Every version that it has been seen to have in memory, in their order.
        self.has_loaded: list[int] = []
        self.stuck_at: int | None = None
        self.refuses: int | None = None
        #: Versions that it has refused before it is asked for them.
        self.remembers: dict[int, Refusal] = {}
        #: It loads such a version after it has told once more that it refuses it.
        self.mends = False
        self.model = MODEL
        self.unshipped = False
        #: The counts in its signals.
        self.versions: dict[int, VersionSignals] = {}
        self.pair = PairSignals()
        #: The states of traffic that it has been in, oldest first.
        self.history: list[Desired] = []
        self._since = datetime.now(UTC)
        self._registry = registry
        self._database = sqlite3.connect(database, check_same_thread=False)
        self._changes: tuple[int] | None = None
        self._seen = ModelState()
        self._served: int | None = None
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                paths = {f"/models/{MODEL}": outer.models, f"/models/{MODEL}/signals": outer.signals}
                body = paths[self.path]().model_dump_json().encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def models(self) -> ReplicaModels:
        refused, models = dict[int, Refusal](), dict[str, LoadedVersion]()
        with self._lock:
            state = self._state()
            wanted = state.aliases.get("champion")
            loaded = self._beside(state)
            if self.refuses is not None and self.refuses in (wanted, *loaded):
                refused[self.refuses] = Refusal(reason="Golden rows differ by 0.1", at=MIDNIGHT)
            refused |= self.remembers
            bad = {self.refuses, *refused}
            if self.mends and self.remembers.keys() & {wanted, *loaded}:
                self.remembers = {}
            if wanted is None or wanted not in bad:
                self._served = self.stuck_at or wanted
            loaded = [each for each in dict.fromkeys((*loaded, self._served)) if each and each not in bad]
            self.has_loaded += [each for each in loaded if each not in self.has_loaded]
            if self._served:
                models["champion"] = LoadedVersion(version=self._served, digest="d", since=MIDNIGHT)
        return ReplicaModels(
            model=self.model,
            replica=self.name,
            models=models,
            refused=refused,
            loaded_versions=loaded,
            unshipped=self.unshipped,
        )

    def _state(self) -> ModelState:
        # The number changes with each commit by another connection.
        changes = self._database.execute("PRAGMA data_version").fetchone()
        if changes != self._changes:
            self._changes, self._seen = changes, self._registry.state(MODEL)
        return self._seen

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._database.close()

    def _beside(self, state: ModelState) -> list[int]:
        """The versions that it loads beside the champion."""
        first, challenger = FirstLoad.of(state.tags), state.aliases.get("challenger")
        if first is None:
            return [challenger] if challenger else []
        mine = [first.version] if first.replica == self.name else []
        return mine if challenger in (None, first.version) else [*mine, challenger]

    def signals(self) -> Signals:
        with self._lock:
            state = self._state()
            challenger = state.aliases.get("challenger")
            asked, _ = desired(state.tags, challenger is not None)
            if not self.history or self.history[-1] != asked:
                self.history.append(asked)
                self._since = datetime.now(UTC)
            return Signals(
                replica=self.name,
                traffic=asked,
                champion=self._served,
                challenger=challenger,
                since=self._since,
                versions=self.versions,
                pair=self.pair,
            )
