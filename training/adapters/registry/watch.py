"""Log files and metrics about a version in service to the run that it came from."""

import logging
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from training.adapters.registry.connection import connect, contract_errors
from training.adapters.registry.versions import ModelVersion
from training.contract.base import midnight

log = logging.getLogger("perennial")


def keep(tracking_uri: str, version: ModelVersion, folder: Path, path: str) -> None:
    """Log the files of `folder` as artifacts under `path` of the version's run. Replaces files with the same names."""
    if not _has_run(version):
        return
    client = connect(tracking_uri)
    with contract_errors(tracking_uri):
        client.log_artifacts(version.run_id, str(folder), path)
    log.info("Logged to run %s of %s version %d: %s/", version.run_id, version.model, version.version, path)


def record(tracking_uri: str, version: ModelVersion, metrics: Mapping[str, float], day: date) -> None:
    """Log `metrics` to the version's run with the time of `day`, so that MLflow plots them over days of data.

    Logging the same values again changes nothing.
    """
    if not _has_run(version):
        return
    from mlflow.entities import Metric

    client = connect(tracking_uri)
    timestamp, step = int(midnight(day).timestamp() * 1000), day.toordinal()
    points = [Metric(name, value, timestamp, step) for name, value in metrics.items()]
    with contract_errors(tracking_uri):
        client.log_batch(version.run_id, metrics=points)


def _has_run(version: ModelVersion) -> bool:
    if not version.run_id:
        log.warning("Nothing is logged for %s version %d, because it has no run", version.model, version.version)
    return bool(version.run_id)
