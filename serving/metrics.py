"""What the service counts, on BentoML's /metrics."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

REQUEST_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Prometheus metrics of one worker, in `registry` (None: the process's own, which takes them only once)."""

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        # Imported any earlier than BentoML's worker sets PROMETHEUS_MULTIPROC_DIR, /metrics would not show these.
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        into = registry or REGISTRY
        self._predictions = Counter(
            "perennial_predictions", "Predictions answered", ["model", "version", "slot", "decision"], registry=into
        )
        self.defaulted = Counter(
            "perennial_predictions_defaulted", "Predictions with default features", ["model"], registry=into
        )
        self.requests = Histogram(
            "perennial_request_seconds",
            "Receipt to answer, of requests that were answered",
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
            "1 while the online store is left alone",
            registry=into,
            multiprocess_mode="livemax",
        )
        self.shadow_dropped = Counter("perennial_shadow_dropped", "Shadow scores given up for overload", registry=into)
        self.fallbacks = Counter(
            "perennial_challenger_fallbacks", "Answered by the champion, the challenger could not", registry=into
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
        #: Finding a child by its labels costs more than counting.
        self._children: dict[tuple[Any, ...], Any] = {}

    def predicted(self, model: str, version: int, slot: str, decision: str, number: int = 1) -> None:
        key = (model, version, slot, decision)
        if key not in self._children:
            self._children[key] = self._predictions.labels(*key)
        self._children[key].inc(number)

    def answered(self, path: str, seconds: float) -> None:
        key = (path,)
        if key not in self._children:
            self._children[key] = self.requests.labels(path)
        self._children[key].observe(seconds)

    def looked_up(self, seconds: float) -> None:
        self._lookups.observe(seconds)

    def lookup_failed(self) -> None:
        self._lookups_failed.inc()

    def breaker(self, state: str) -> None:
        self._breaker.set(0 if state == "closed" else 1)
