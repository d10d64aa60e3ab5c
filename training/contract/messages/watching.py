"""Monitoring: drift of the data, performance on late labels, skew of the features."""

from datetime import date
from typing import Any, Literal

from pydantic import model_validator

from training.contract.base import Days, Frozen
from training.contract.messages.inputs import Metrics, ModelInputs, counted
from training.contract.messages.snapshot import OfSnapshot, SnapshotInputs
from training.contract.names import Metric


class DriftInputs(ModelInputs):
    """`drift` is the first step of a monitoring run: it resolves the snapshot that the others read."""

    as_of: date | None = None
    """The knowledge horizon. None: the day after the newest events."""
    run: str = ""
    """The orchestrator's id of the monitoring run, the same in every retry: a retry reads the same snapshot."""


class Shift(Frozen):
    """The part of a column's rows that has changed most surely (training/domain/shares.py)."""

    part: str
    """Which rows: `equal to 0`, `at most 12.5`, `missing`, …"""
    reference: float
    """Their share in the reference."""
    current: float
    minimum: float
    """A smaller difference of the shares is not drift."""
    p_value: float
    """The chance of such a difference when nothing has changed, of the whole column."""
    adjusted_p_value: float = 1.0
    """That of Benjamini and Hochberg over all columns. The column drifted when it is at most `chance`."""
    chance: float = 0.0
    """The chance of error of this look, so that all looks together have the confidence of the spec."""
    design_effect: float
    """So many rows say as much as one that is independent of all others, because those of one entity are alike."""

    @property
    def drifted(self) -> bool:
        return self.adjusted_p_value <= self.chance and abs(self.current - self.reference) >= self.minimum

    def __str__(self) -> str:
        return (
            f"{self.current:.1%} of the rows are {self.part}, {self.reference:.1%} in the reference "
            f"(adjusted p-value {self.adjusted_p_value:.2g}, drifted from {self.chance:.2g} and a difference of "
            f"{self.minimum:.1%}; {self.design_effect:.1f} rows count as one)"
        )


class ColumnDrift(Frozen):
    score: float
    """Evidently's, as its page shows it."""
    threshold: float
    """Evidently's."""
    method: str
    """Evidently's."""
    drifted: bool
    shift: Shift | None = None
    """None: the test `distance`, or an entry of an earlier version. Then a score from the threshold on is drift."""

    @property
    def certainty(self) -> tuple[float, float]:
        """Sorts columns: the surest change first."""
        return (self.shift.adjusted_p_value if self.shift else 1.0, -self.score / self.threshold)


class DriftResult(OfSnapshot):
    outcome: Literal["measured", "no champion", "no data"]
    window: Days | None = None
    drifted: bool = False
    drifted_share: float = 0.0
    columns: dict[str, ColumnDrift] = {}
    not_defined: list[str] = []
    """Features of the champion that the definitions no longer have: compared as their default."""
    short_of_history: list[str] = []
    """Features that were not compared: the champion's training rows lack history that later rows have."""
    report_html: str | None = None
    report_json: str | None = None


class PerformanceInputs(SnapshotInputs):
    pass


class Degradation(Frozen):
    """The test whether the primary metric has become worse than on the holdout (training/domain/performance.py)."""

    metric: Metric
    drop: float
    """By how much it is worse than on the reference. Negative: it is better."""
    windows: int = 0
    """The reference is the mean of the holdout and of so many of the champion's first windows."""
    together: int = 1
    """What is compared with it is the mean of so many windows, the newest ones."""
    standard_error: float
    """Of the drop: that of the window and that of the reference together."""
    look: int
    """The window's number in the champion's life."""
    confidence: float
    """Of this look, so that all looks together have the confidence of the spec."""
    lowest_drop: float
    """The drop is at least this, with that confidence."""
    allowed: float

    @property
    def degraded(self) -> bool:
        return self.lowest_drop > self.allowed

    def __str__(self) -> str:
        few = {0: "", 1: " and the window after it"}
        beside = few.get(self.windows, f" and the {self.windows} windows after it")
        change = f"{abs(self.drop):.3f} ± {self.standard_error:.3f}"
        if self.drop < 0:
            found = f"better than on the holdout{beside} by {change}"
        elif self.lowest_drop > 0:
            least = f"by at least {self.lowest_drop:.3f} with confidence {self.confidence:.3%}"
            found = f"worse than on the holdout{beside} by {change}, {least}"
        else:
            doubt = f"which may be chance at confidence {self.confidence:.3%}"
            found = f"worse than on the holdout{beside} by {change}, {doubt}"
        over = f" over {self.together} windows" if self.together > 1 else ""
        where = f"window {self.look} of this champion"
        return f"{self.metric}{over} is {found} ({where}); {self.allowed:.3f} is allowed"


class ComparedEstimate(Frozen):
    """What was estimated for a window before its labels came, and what they then showed."""

    window: Days
    estimated: float
    realised: float
    standard_error: float
    """Of the difference of the two."""
    inside: bool
    """Whether the realised value lies in the interval of the estimate."""

    @property
    def error(self) -> float:
        return self.realised - self.estimated


class EstimatedPerformance(Frozen):
    """The champion's performance on the newest window, whose labels have not come: what its holdout lets expect of its
    own outputs there (training/domain/estimated_performance.py)."""

    window: Days
    rows: int
    metrics: Metrics
    """Each metric that can be estimated. The primary one is among them."""
    standard_error: float
    """Of the primary metric: how far the realised value may be off by chance."""
    low: float
    high: float
    """Between which the realised value of the primary metric is expected, with `monitoring.confidence`."""
    test: Degradation | None = None
    """The test whether the estimate is worse than the holdout."""
    compared: list[ComparedEstimate] = []
    """Earlier windows of this champion whose labels have come, newest first."""
    degraded: bool = False
    """What `test` says."""
    trusted: bool = False
    """Whether estimates have been right before. Only then may one be a reason to train."""

    @property
    def mean_absolute_error(self) -> float | None:
        """Of the estimates whose labels have come."""
        errors = [abs(each.error) for each in self.compared]
        return sum(errors) / len(errors) if errors else None


class Segment(Frozen):
    """Rows of the window whose loss rose (training/domain/diagnosis.py). Found on one half of the entities; the numbers
    are those of the other half."""

    where: str
    """The conditions that its rows meet."""
    rows: int
    share: float
    """Of the window's rows."""
    share_before: float
    """Of the holdout's rows."""
    loss: float
    """The mean."""
    loss_before: float
    """The mean of the holdout's rows that meet the conditions; of all of its rows when (nearly) none does."""
    low: float
    high: float
    """Between which the rise of its mean loss lies, with `monitoring.confidence` for all segments together."""
    moved: dict[str, Shift] = {}
    """Features that have other values there than on the holdout, those that moved most first."""

    @property
    def adds(self) -> float:
        """How much it adds to the rise of the mean loss of all rows."""
        return self.share * self.loss - self.share_before * self.loss_before

    def __str__(self) -> str:
        moved = f"; moved: {', '.join(self.moved)}" if self.moved else ""
        return (
            f"{self.where}: {self.share:.1%} of the rows ({self.share_before:.1%} on the holdout), loss "
            f"{self.loss:.4g} ({self.loss_before:.4g}), a rise of {self.low:.4g} to {self.high:.4g}{moved}"
        )


class Diagnosis(Frozen):
    """Where performance fell, against the champion's holdout."""

    loss: str
    """What the loss of a row is."""
    now: float
    """The mean of the window's rows."""
    before: float
    segments: list[Segment] = []
    """Those whose loss rose beyond chance, the one that adds most first. Empty: none stands out."""
    moved: dict[str, Shift] = {}
    """Features that have other values in the whole window than on the holdout."""


class DailyLoss(Frozen):
    """How much a model lost on the rows of one day: what its task calls the loss of a row."""

    rows: int
    mean: float
    variance: float
    """Of the rows' losses."""


class PerformanceResult(OfSnapshot):
    outcome: Literal["measured", "no champion", "too few labels", "no predictions"]
    window: Days | None = None
    rows: int = 0
    not_finite: int = 0
    """Labelled predictions that were left out, because the model's output was not a finite number."""
    counts: dict[str, int] = {}
    """Class → its rows, where labels are classes."""
    lacks: str = ""
    """What the labels lack for metrics, when there are too few."""
    current: Metrics = {}
    reference: Metrics = {}
    """The champion's on its own holdout."""
    reference_counts: dict[str, int] = {}
    """Class → its rows in the holdout. Empty for a champion of an earlier version."""
    test: Degradation | None = None
    """None: the two cannot be compared. Earlier versions compared them without a test."""
    degraded: bool = False
    diagnosis: Diagnosis | None = None
    """Where it fell. None unless it degraded."""
    estimated: EstimatedPerformance | None = None
    """Of the newest window. None: it has no predictions, its labels are in, or the champion's run does not hold what
    estimates are made of."""
    change: date | None = None
    """The day since which the champion has been losing more (training/domain/change.py). None: it has not degraded, or
    not abruptly."""

    @model_validator(mode="before")
    @classmethod
    def _counts_of_an_earlier_version(cls, fields: Any) -> Any:
        return counted(fields)


class AuditInputs(SnapshotInputs):
    pass


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


class AuditResult(OfSnapshot):
    outcome: Literal["measured", "no predictions"]
    window: Days | None = None
    rows: int = 0
    """Requests that were audited."""
    share: float = 0.0
    """Of all their values: those that no offline value explains."""
    features: dict[str, FeatureSkew] = {}
    not_defined: dict[str, int] = {}
    """Features that were logged and that the definitions no longer have, so not compared → requests with them."""
    report: str | None = None
