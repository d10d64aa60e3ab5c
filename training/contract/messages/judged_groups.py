"""What a verdict keeps of slices, calibration and fairness: small records with every number that was judged.

A number is None when it could not be measured.
"""

from typing import Literal

from training.contract.base import Frozen
from training.contract.names import StoredMetric

Outcome = Literal["passed", "failed", "too_few", "not_compared"]


class SliceResult(Frozen):
    """One slice: the metric of both models there, and challenger minus champion."""

    where: str
    found: bool = False
    """Whether the slice was found, not declared. It is measured on one half of the entities."""
    rows: int
    challenger: float | None
    champion: float | None = None
    low: float | None = None
    high: float | None = None
    """The interval of the difference. All intervals together hold with the confidence of SliceResults."""
    outcome: Outcome
    why: str = ""
    """What the slice lacks, when it is too small."""


class SliceResults(Frozen):
    metric: StoredMetric
    confidence: float
    drawn: str = ""
    """What the bootstrap drew."""
    slices: list[SliceResult]
    left_out: int = 0
    """Slices that passed or were too small, and are not kept: steps pass verdicts on."""


class CalibrationBin(Frozen):
    """Rows with predictions next to each other: the means of what was predicted and of what came true."""

    rows: int
    predicted: float
    observed: float
    inside: float | None = None
    """The share of labels in their prediction interval, where there are such intervals."""


class CalibrationResult(Frozen):
    of: str
    """What is predicted, such as the probability of the likeliest class."""
    error: float
    """The expected calibration error: the mean over rows of the difference of the two means of their bin."""
    low: float | None
    high: float | None
    by_chance: float | None = None
    """The error that perfectly calibrated probabilities would have on so many rows. None: not of probabilities."""
    confidence: float
    limit: float | None = None
    champion: float | None = None
    """The error of the champion on the same rows."""
    bins: list[CalibrationBin]


class GroupRate(Frozen):
    """A measure of one group. None: the group is too small for it."""

    column: str
    measure: str
    """With the class, as Gap.name."""
    group: str
    rows: int
    """That count for the measure."""
    value: float | None


class Gap(Frozen):
    """The largest difference in a measure between two groups of a column."""

    column: str
    measure: str
    of: str = ""
    """The class that is compared with all others, where there are several."""
    gap: float
    low: float | None = None
    high: float | None = None
    highest: str
    lowest: str
    """The groups with the highest and with the lowest value."""
    limit: float | None = None
    champion: float | None = None
    """The champion's gap on the same rows."""
    change: tuple[float, float] | None = None
    """The interval of how much larger the challenger's gap is than the champion's."""

    @property
    def name(self) -> str:
        return f"{self.measure} of {self.of}" if self.of else self.measure


class FairnessResult(Frozen):
    confidence: float
    drawn: str = ""
    rates: list[GroupRate]
    """Of the measures that `gaps` names, and of those that have none because groups are too small."""
    gaps: list[Gap]
    """The largest ones of each measure."""
