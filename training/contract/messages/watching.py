"""Has the world left the model behind?"""

from datetime import date
from typing import Literal

from training.contract.base import Days, Frozen, TableVersions
from training.contract.messages.inputs import Metrics, StepInputs


class DriftInputs(StepInputs):
    as_of: date | None = None
    """None: the day after the newest events, resolved here."""


class ColumnDrift(Frozen):
    score: float
    threshold: float
    method: str
    drifted: bool


class DriftResult(Frozen):
    outcome: Literal["measured", "no champion", "no data"]
    as_of: date | None
    """The knowledge horizon: events and labels before this midnight."""
    history_days: int = 0
    """Days of events before `as_of`."""
    window: Days | None = None
    champion_version: int | None = None
    drifted: bool = False
    drifted_share: float = 0.0
    columns: dict[str, ColumnDrift] = {}
    not_defined: list[str] = []
    """Features of the champion that the definitions no longer have: compared as their default."""
    report_html: str | None = None
    report_json: str | None = None
    table_versions: TableVersions = {}


class PerformanceInputs(StepInputs):
    as_of: date | None
    """As resolved by `drift`; None: nothing to measure."""
    champion_version: int | None = None


class PerformanceResult(Frozen):
    outcome: Literal["measured", "no champion", "too few labels", "no predictions"]
    window: Days | None = None
    rows: int = 0
    positives: int = 0
    current: Metrics = {}
    reference: Metrics = {}
    """The champion's on its own holdout."""
    degraded: bool = False
    table_versions: TableVersions = {}


class AuditInputs(StepInputs):
    as_of: date | None
    """As resolved by `drift`; None: nothing to audit."""
    table_versions: TableVersions | None = None
    """Versions of the feature tables to read. None: the newest, resolved here."""


class SkewExample(Frozen):
    id: str
    logged: float | None
    """None: not a number."""
    offline: float | None
    """At the request's own time."""


class FeatureSkew(Frozen):
    values: int
    mismatches: int
    """Logged values that no offline value explains."""
    share: float
    largest: float
    """The largest absolute difference among them, of those that are numbers."""
    behind: int
    """Explained by the online store being behind: it had an older feature row."""
    defaulted: int
    """Explained by the entity being unknown to the online store then."""
    examples: list[SkewExample] = []
    """Those of the largest difference."""


class AuditResult(Frozen):
    outcome: Literal["measured", "no predictions"]
    as_of: date | None
    window: Days | None = None
    rows: int = 0
    """Requests that were audited."""
    share: float = 0.0
    """Of all their values: those that no offline value explains."""
    features: dict[str, FeatureSkew] = {}
    not_defined: dict[str, int] = {}
    """Features that were logged, by how many requests, and that the definitions no longer have: nothing to compare."""
    report: str | None = None
    table_versions: TableVersions = {}
