"""The sections `retention`: how long what nobody needs any more is kept. The DAG `<source>_retention` applies them.

Whatever the numbers say, nothing is deleted that a registered version was made of, or that is served.
"""

from pydantic import Field

from training.contract.base import Spec


class SourceRetention(Spec):
    """Of a source, in days."""

    table_versions_days: int = Field(30, ge=1)
    """Earlier versions of the lake's tables can be read for this long. Those that a registered version was made of stay
    for ever."""
    pages_days: int = Field(365, ge=1)
    """The pages about the partitions that were taken in."""
    verify_nights: int = Field(7, ge=1)
    """Within so many nights each file of the lake is read and compared with what was written; new files come first. 1:
    every night reads all."""


class ModelRetention(Spec):
    """Of a model, in days."""

    work_days: int = Field(30, ge=1)
    """What is made again from the lake or loaded from MLflow: datasets, artifacts, checkpoints, snapshots."""
    reports_days: int = Field(365, ge=1)
    """Reports on drift, verdicts, rollouts and audits."""
    run_artifacts_days: int = Field(90, ge=1)
    """The artifacts of MLflow runs that no registered version belongs to. The runs and their numbers stay."""
