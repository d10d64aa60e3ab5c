"""The sections `retention`: how long data that is no longer needed is kept. The DAG `<source>_retention` applies them.

Whatever the numbers say, nothing is deleted that a registered version was made of, or that is served.
"""

from training.contract.base import DayCount, Spec


class SourceRetention(Spec):
    """Of a source, in days."""

    table_versions_days: DayCount = 30
    """Earlier versions of the lake's tables can be read for this long. Those that a registered version was made of stay
    for ever."""
    pages_days: DayCount = 365
    """The pages about ingested partitions."""
    verify_nights: DayCount = 7
    """Within this many nights each file of the lake is read and compared with what was written; new files come first.
    1: every night reads all."""


class ModelRetention(Spec):
    """Of a model, in days."""

    work_days: DayCount = 30
    """What can be made again from the lake or loaded from MLflow: datasets, artifacts, checkpoints, snapshots."""
    reports_days: DayCount = 365
    """Reports on drift, verdicts, rollouts and audits."""
    run_artifacts_days: DayCount = 90
    """The artifacts of MLflow runs that no registered version belongs to. The runs and their numbers stay."""
