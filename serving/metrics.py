"""The Prometheus metrics of the service, on BentoML's /metrics. Those about a model have the label `model`.

What is counted for every request is collected here and added to the metrics every FLUSH_SECONDS: with several
processes, prometheus_client asks the kernel for the process id at every increment, which is slow.
"""

import math
import threading
import time
from collections import Counter as Counter_
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.compat.prometheus import observe_many
from training.domain.task_kind import ServedTask

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

FLUSH_SECONDS = 1.0
REQUEST_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one worker, in `registry`. None is the registry of the process, which takes them only once."""

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        # Imported here, after BentoML's worker has set PROMETHEUS_MULTIPROC_DIR. Else /metrics would not show these.
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        into: Any = {"registry": registry or REGISTRY}
        newest: Any = {"multiprocess_mode": "livemax", **into}
        model = ["model"]
        self.predictions = Counter(
            "perennial_predictions", "Predictions answered", ["model", "version", "role", "decision"], **into
        )
        self.outputs = Counter(
            "perennial_outputs",
            "Predictions answered, by group of the output: a range of scores, a class, a twentieth of the holdout",
            ["model", "version", "group"],
            **into,
        )
        self.defaulted = Counter("perennial_predictions_defaulted", "Predictions with default features", model, **into)
        self.lacking = Counter(
            "perennial_features_lacking",
            "Answers with the default of a feature that rows of the online store lack",
            ["model", "version", "feature"],
            **into,
        )
        self.requests = Histogram(
            "perennial_request_seconds",
            "Seconds from receipt to answer, of answered requests",
            ["model", "path"],
            buckets=REQUEST_BUCKETS,
            **into,
        )
        self.refusals = Counter("perennial_requests_refused", "Requests not answered", ["model", "status"], **into)
        self.shed = Counter("perennial_requests_shed", "Requests refused for overload", model, **into)
        self.lookups = Histogram(
            "perennial_lookup_seconds", "Lookups in the online store", model, buckets=REQUEST_BUCKETS, **into
        )
        self.lookups_failed = Counter("perennial_lookups_failed", "Lookups that failed", model, **into)
        self.breaker = Gauge(
            "perennial_breaker_open",
            "1 while the circuit breaker keeps requests from the online store",
            model,
            **newest,
        )
        self.shadow_dropped = Counter(
            "perennial_shadow_dropped", "Rows that a shadow did not score: overload, or the stage ended", model, **into
        )
        self.fallbacks = Counter(
            "perennial_challenger_fallbacks",
            "Requests the champion answered, as the challenger failed",
            model,
            **into,
        )
        self.shipped = Counter("perennial_prediction_log_shipped", "Predictions shipped to the lake", model, **into)
        self.dropped = Counter("perennial_prediction_log_dropped", "Predictions not logged", model, **into)
        self.table_older = Gauge(
            "perennial_prediction_log_table_older",
            "When the lake's table was found to lack predictions that were shipped, in seconds since 1970; 0: never",
            model,
            **newest,
        )
        self.spool_bytes = Gauge(
            "perennial_prediction_log_spool_bytes",
            "Predictions on disk, not yet shipped",
            model,
            multiprocess_mode="livesum",
            **into,
        )
        self.champion = Gauge(
            "perennial_champion_version", "The version that answers; 0 while there is none", model, **newest
        )
        self.wanted_champion = Gauge(
            "perennial_registry_champion_version",
            "The champion that the registry names; 0 while it names none or was never reached",
            model,
            **newest,
        )
        self.registry_answers = Gauge(
            "perennial_registry_answers", "1 while MLflow answers about the model, 0 while it does not", model, **newest
        )
        self.ready = Gauge(
            "perennial_model_ready", "1 while the model can answer; NaN once it is not served any more", model, **newest
        )
        self.loaded = Gauge(
            "perennial_model_loaded", "1 while versions of the model are in memory; 0 while none is", model, **newest
        )
        self.unloads = Counter("perennial_model_unloads", "How often the model was unloaded", model, **into)
        self.too_many = Gauge(
            "perennial_models_above_maximum", "Models in memory beyond the maximum, because all are busy", **newest
        )
        self.spec_problem = Gauge(
            "perennial_spec_problem", "1 while a model's spec file is not used, because it is broken", model, **newest
        )
        self.refused = Counter("perennial_refused_versions", "Loads that were refused", model, **into)
        self._lock = threading.Lock()
        self._models: dict[str, ModelMetrics] = {}
        threading.Thread(target=self._flush_forever, name="metrics", daemon=True).start()

    def of(self, model: str) -> "ModelMetrics":
        """The metrics of `model`."""
        with self._lock:
            if model not in self._models:
                self._models[model] = ModelMetrics(self, model)
            return self._models[model]

    def _flush_forever(self) -> None:
        while True:
            time.sleep(FLUSH_SECONDS)
            for each in list(self._models.values()):
                each.flush()


class ModelMetrics:
    """The metrics of one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics, self._model = metrics, model
        self.shed = metrics.shed.labels(model)
        self.shadow_dropped = metrics.shadow_dropped.labels(model)
        self.fallbacks = metrics.fallbacks.labels(model)
        self.shipped, self.dropped = metrics.shipped.labels(model), metrics.dropped.labels(model)
        self.spool_bytes = metrics.spool_bytes.labels(model)
        self.table_older = metrics.table_older.labels(model)
        self.champion = metrics.champion.labels(model)
        self.wanted_champion = metrics.wanted_champion.labels(model)
        self.registry_answers = metrics.registry_answers.labels(model)
        self.ready = metrics.ready.labels(model)
        self.loaded, self.unloads = metrics.loaded.labels(model), metrics.unloads.labels(model)
        self.refused = metrics.refused.labels(model)
        self.lookups_failed = metrics.lookups_failed.labels(model)
        self._breaker = metrics.breaker.labels(model)
        self._lookups = metrics.lookups.labels(model)
        self._defaulted = metrics.defaulted.labels(model)
        self._lock = threading.Lock()
        self._counted: Counter_ = Counter_()
        #: Path → seconds of its requests; None → seconds of lookups.
        self._observed: dict[str | None, list[float]] = {}
        self._scored: dict[int, tuple[ServedTask, list[np.ndarray]]] = {}

    def predicted(
        self,
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
                self._counted[(version, role, decision)] += rows
            self._scored.setdefault(version, (task, []))[1].append(scores)
        if defaulted:
            self._defaulted.inc(defaulted)

    def lacks(self, version: int, feature: str) -> None:
        """The online store lacks a feature that an answer of `version` uses."""
        self._metrics.lacking.labels(self._model, version, feature).inc()

    def answered(self, path: str, seconds: float) -> None:
        """`path`: /predict or /predict_batch, without the model."""
        with self._lock:
            self._observed.setdefault(path, []).append(seconds)

    def not_answered(self, status: int) -> None:
        self._metrics.refusals.labels(self._model, status).inc()

    def looked_up(self, seconds: float) -> None:
        with self._lock:
            self._observed.setdefault(None, []).append(seconds)

    def breaker(self, state: str) -> None:
        self._breaker.set(0 if state == "closed" else 1)

    def removed(self) -> None:
        """The model is not served any more. With several processes, prometheus_client cannot remove a series."""
        for gauge in (self.champion, self.ready, self.loaded, self._breaker):
            gauge.set(math.nan)
        self.spool_bytes.set(0)

    def flush(self) -> None:
        """Add what was collected since the last call to the metrics."""
        if not (self._counted or self._observed):
            return
        with self._lock:
            counted, self._counted = self._counted, Counter_()
            observed, self._observed = self._observed, {}
            scored, self._scored = self._scored, {}
        for labels, number in counted.items():
            self._metrics.predictions.labels(self._model, *labels).inc(number)
        for version, (task, scores) in scored.items():
            for place, rows in enumerate(np.bincount(task.grouped(np.concatenate(scores))).tolist()):
                if rows:
                    self._metrics.outputs.labels(self._model, version, task.groups[place]).inc(rows)
        for path, values in observed.items():
            observe_many(self._lookups if path is None else self._metrics.requests.labels(self._model, path), values)
