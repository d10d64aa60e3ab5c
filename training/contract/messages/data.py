"""From a landed file to features online."""

from datetime import date
from typing import Literal

from pydantic import Field

from training.contract.base import Days, Frozen, TableVersions
from training.contract.messages.inputs import SourceInputs
from training.contract.names import PARTITION_PATTERN, Name
from training.contract.state_uris import LandedUri


class IngestInputs(SourceInputs):
    feed: Name
    partition: str = Field(pattern=PARTITION_PATTERN)
    """The days that it promises: `2026-01-05`, or `2026-01-05_2026-01-18`, both ends in, for a load of past days."""
    uri: LandedUri
    """Path or URI of the landed file, or folder of part files."""


class IngestResult(Frozen):
    outcome: Literal["appended", "replaced", "unchanged"]
    content_sha256: str
    rows_read: int
    rows_kept: int
    rows_quarantined: int
    quarantine_reasons: dict[str, int]
    """Rule that was broken → rows."""
    affected: Days | None
    """Feature days that must be computed again; None when no feature can have changed."""
    table_versions: TableVersions
    forgotten: list[str] = []
    """The ids of the tombstones of rows of this partition that were removed on request: this delivery may have brought
    them back."""
    data_docs: str | None
    """Great Expectations' page about this partition."""


class ReplayQuarantineInputs(SourceInputs):
    feed: Name
    partition: str | None = None
    """None: all partitions of the feed with rows in quarantine."""
    corrections: str | None = Field(None, pattern=r"^[^/\\]+$")
    """The name of a Parquet file in the folder `_corrections` of the source's landing folder, with corrected rows of
    `partition`. Each takes the place of the quarantined rows with its id."""
    reason: str
    run: str = ""
    requested_by: str = ""


class ReplayedPartition(Frozen):
    partition: str
    entered: int
    """Rows that left quarantine and are in the lake now."""
    stays: int
    reasons: dict[str, int]
    """Rule that is still broken → rows."""


class ReplayQuarantineResult(Frozen):
    partitions: list[ReplayedPartition]
    affected: Days | None
    """Feature days that must be computed again; None when no row entered."""
    table_versions: TableVersions


class FeaturesInputs(SourceInputs):
    days: Days | None
    """Feature timestamps (midnight, UTC) to compute: `affected` of ingest. None: nothing to do."""
    table_versions: TableVersions
    """Versions of the feeds to read."""


class FeaturesResult(Frozen):
    rows: dict[str, int]
    table_versions: TableVersions
    """What was read and what was written."""
    as_of: date | None = None
    """Day of the newest feature rows; None when there are none yet."""


class MaterializeInputs(SourceInputs):
    table_versions: TableVersions | None = None
    """Versions of the feature tables to read. None: the newest, to fill an online store that was lost."""


class MaterializeResult(Frozen):
    as_of: date | None
    """Day of the newest feature rows, which are now online; None when there are no feature rows yet."""
    rows: dict[str, int]
    """Feature table → entities that are now online. Only those whose rows had changed were written."""
    table_versions: TableVersions
