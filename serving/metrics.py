"""The Prometheus metrics of the service, on BentoML's /metrics.

What is counted for every request is collected here and added to the metrics a few times a second: with several
processes, prometheus_client asks the kernel for the process id at every increment, which is slow.
"""

import threading
import time
from collections import Counter as Counter_
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from serving.compat.prometheus import observe_many
from training.domain.task_kind import ServedTask

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

FLUSH_SECONDS = 0.25
REQUEST_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one worker, in `registry`. None is the registry of the process, which takes them only once."""

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        # Imported here, after BentoML's worker has set PROMETHEUS_MULTIPROC_DIR. Else /metrics would not show these.
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        into = registry or REGISTRY
        self._predictions = Counter(
            "perennial_predictions", "Predictions answered", ["model", "version", "role", "decision"], registry=into
        )
        self._outputs = Counter(
            "perennial_outputs",
            "Predictions answered, by group of the output: a range of scores, a class, a twentieth of the holdout",
            ["model", "version", "group"],
            registry=into,
        )
        self._defaulted = Counter(
            "perennial_predictions_defaulted", "Predictions with default features", ["model"], registry=into
        )
        self.lacking = Counter(
            "perennial_features_lacking",
            "Answers with the default of a feature that rows of the online store lack",
            ["model", "version", "feature"],
            registry=into,
        )
        self.requests = Histogram(
            "perennial_request_seconds",
            "Seconds from receipt to answer, of answered requests",
            ["path"],
            buckets=REQUEST_BUCKETS,
            registry=into,
        )
        self.refusals = Counter("perennial_requests_refused", "Requests not answered", ["status"], registry=into)
        self.shed = Counter("perennial_requests_shed", "Requests refused for overload", registry=into)
        self._lookups = Histogram(
            "perennial_lookup_seconds", "Lookups in the online store", buckets=REQUEST_BUCKETS, registry=into
        )
        self._lookups_failed = Counter("perennial_lookups_failed", "Lookups that failed", registry=into)
        self._breaker = Gauge(
            "perennial_breaker_open",
            "1 while the circuit breaker keeps requests from the online store",
            registry=into,
            multiprocess_mode="livemax",
        )
        self.shadow_dropped = Counter(
            "perennial_shadow_dropped", "Rows that a shadow did not score: overload, or the stage ended", registry=into
        )
        self.fallbacks = Counter(
            "perennial_challenger_fallbacks",
            "Requests the champion answered, as the challenger failed",
            registry=into,
        )
        self.shipped = Counter("perennial_prediction_log_shipped", "Predictions shipped to the lake", registry=into)
        self.dropped = Counter("perennial_prediction_log_dropped", "Predictions not logged", registry=into)
        self.spool_bytes = Gauge(
            "perennial_prediction_log_spool_bytes",
            "Predictions on disk, not yet shipped",
            registry=into,
            multiprocess_mode="livesum",
        )
        self.champion = Gauge(
            "perennial_champion_version",
            "The version that answers",
            ["model"],
            registry=into,
            multiprocess_mode="livemax",
        )
        self.refused = Counter("perennial_refused_versions", "Loads that were refused", ["model"], registry=into)
        self._lock = threading.Lock()
        self._counted: Counter_ = Counter_()
        self._observed: dict[tuple[str, str], list[float]] = {}
        self._scored: dict[tuple[str, int], tuple[ServedTask, list[np.ndarray]]] = {}
        threading.Thread(target=self._flush_forever, name="metrics", daemon=True).start()

    def predicted(
        self,
        model: str,
        version: int,
        role: str,
        decisions: Mapping[str, int],
        defaulted: int,
        task: ServedTask,
        scores: np.ndarray,
    ) -> None:
        """`version` answered rows as `role`. `decisions`: decision → rows, empty where the task makes none.
        `defaulted`: rows with default features. `task` says what the `scores` mean, [n] or [n, k].
        """
        with self._lock:
            for decision, rows in decisions.items():
                self._counted[(model, version, role, decision)] += rows
            self._scored.setdefault((model, version), (task, []))[1].append(scores)
        if defaulted:
            self._defaulted.labels(model).inc(defaulted)

    def answered(self, path: str, seconds: float) -> None:
        with self._lock:
            self._observed.setdefault(("request", path), []).append(seconds)

    def looked_up(self, seconds: float) -> None:
        with self._lock:
            self._observed.setdefault(("lookup", ""), []).append(seconds)

    def lookup_failed(self) -> None:
        self._lookups_failed.inc()

    def breaker(self, state: str) -> None:
        self._breaker.set(0 if state == "closed" else 1)

    def flush(self) -> None:
        """Add what was collected since the last call to the metrics."""
        with self._lock:
            counted, self._counted = self._counted, Counter_()
            observed, self._observed = self._observed, {}
            scored, self._scored = self._scored, {}
        for labels, number in counted.items():
            self._predictions.labels(*labels).inc(number)
        for (model, version), (task, scores) in scored.items():
            for place, rows in enumerate(np.bincount(task.grouped(np.concatenate(scores))).tolist()):
                if rows:
                    self._outputs.labels(model, version, task.groups[place]).inc(rows)
        for (kind, path), values in observed.items():
            observe_many(self.requests.labels(path) if kind == "request" else self._lookups, values)

    def _flush_forever(self) -> None:
        while True:
            time.sleep(FLUSH_SECONDS)
            self.flush()
