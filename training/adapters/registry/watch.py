"""What is found out about a version once it serves, kept with the run that it came from."""

import logging
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from training.adapters.registry.connection import answering, connect
from training.adapters.registry.versions import ModelVersion
from training.contract.base import midnight

log = logging.getLogger("perennial")


def keep(tracking_uri: str, version: ModelVersion, folder: Path, path: str) -> None:
    """Put the files of `folder` into `path` of the run's artifacts, in the place of those of the same names."""
    if not _has_run(version):
        return
    client = connect(tracking_uri)
    with answering(tracking_uri):
        client.log_artifacts(version.run_id, str(folder), path)
    log.info("Kept in the run %s of %s version %d: %s/", version.run_id, version.model, version.version, path)


def record(tracking_uri: str, version: ModelVersion, metrics: Mapping[str, float], day: date) -> None:
    """Log `metrics` to the run as of `day`: a curve over days of data. The same values again change nothing."""
    if not _has_run(version):
        return
    from mlflow.entities import Metric

    client = connect(tracking_uri)
    timestamp, step = int(midnight(day).timestamp() * 1000), day.toordinal()
    points = [Metric(name, value, timestamp, step) for name, value in metrics.items()]
    with answering(tracking_uri):
        client.log_batch(version.run_id, metrics=points)


def _has_run(version: ModelVersion) -> bool:
    if not version.run_id:
        log.warning("%s version %d has no run to keep anything with", version.model, version.version)
    return bool(version.run_id)
