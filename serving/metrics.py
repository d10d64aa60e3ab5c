"""What the service counts, on BentoML's /metrics."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Metrics:
    """Prometheus metrics of one worker, in `registry` (None: the process's own, which takes them only once)."""

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        # Imported any earlier than BentoML's worker sets PROMETHEUS_MULTIPROC_DIR, /metrics would not show these.
        from prometheus_client import REGISTRY, Counter, Gauge

        into = registry or REGISTRY
        self.predictions = Counter(
            "perennial_predictions", "Predictions answered", ["model", "version", "decision"], registry=into
        )
        self.defaulted = Counter(
            "perennial_predictions_defaulted", "Predictions for an unknown entity", ["model"], registry=into
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
