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
