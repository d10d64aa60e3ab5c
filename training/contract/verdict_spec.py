"""The sections of `evaluation` that judge groups of rows: slices, calibration, fairness."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from training.contract.base import Spec
from training.contract.columns import Scalar
from training.contract.names import Metric, Name, listed, more_than_once
from training.contract.problems import Mistake, raise_contradictions
from training.contract.tasks import Margin, Relative

Confidence = Annotated[float, Field(gt=0.5, lt=1)]
MinimumRows = Annotated[int, Field(ge=1)]


class Grouping(Spec):
    """How the values of a column become groups. With neither field: its ten most frequent values, and one group of all
    others; of a number, its quarters on the holdout. Rows without a value are a group of their own."""

    values: Annotated[tuple[Scalar, ...] | None, Field(strict=False, min_length=1)] = None
    """A group for each of these values, and one of all others."""
    bounds: Annotated[tuple[float, ...] | None, Field(strict=False, min_length=1)] = None
    """For numbers: where bands begin. `[10, 100]` is below 10, from 10 to below 100, and from 100 on."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "Grouping":
        found: list[Mistake] = []
        if self.values is not None and self.bounds is not None:
            found.append(("bounds", "is given beside values", "Give one of them."))
        bounds = self.bounds or ()
        if any(high <= low for low, high in pairwise(bounds)):
            what = f"is {list(bounds)}, but each bound must be above the one before: bands must not overlap"
            found.append(("bounds", what, "Sort the bounds, and list each once."))
        # In Python True equals 1.
        written = more_than_once((type(value), value) for value in self.values or ())
        if repeated := sorted({str(value) for _, value in written}):
            found.append(("values", f"holds {listed(repeated)} more than once", "List each value once."))
        raise_contradictions(found)
        return self


class SlicesSpec(Spec):
    """The challenger may not be worse than the champion in a part of the rows. Docs: docs/verdict.md."""

    columns: dict[str, Grouping] = {}
    """Column of the events, or feature → its groups. A column need not be a feature of the model."""
    ages: dict[str, Grouping] = {}
    """Entity column of the events → bands of the days since the entity was first seen."""
    find: bool = True
    """Look for further slices: groups of rows, by values of features, in which the challenger loses most to the
    champion. They are found on one half of the entities and measured on the other."""
    metric: Literal[""] | Metric = ""
    """What is compared. Default: `evaluation.primary`."""
    margin: Margin = Relative(relative=0.05)
    """By how much the metric may be worse than the champion's in a slice: absolute, or `{relative: 0.05}` of it."""
    confidence: Confidence = 0.95
    """The confidence with which the intervals of all slices hold together. So a challenger that is no worse in any
    slice fails the gate with at most the chance `1 - confidence`, however many slices there are."""
    minimum_rows: MinimumRows = 200
    """A slice with fewer rows is too small to tell."""
    minimum_class_rows: MinimumRows = 20
    """A slice with fewer rows of each class, or of two classes when there are more, is too small, too."""


class CalibrationSpec(Spec):
    """Whether predictions mean what they say: among the rows with a score of about 0.2, one in five is positive."""

    maximum_error: float | None = Field(None, gt=0)
    """The highest expected calibration error that may be promoted: a share for probabilities, in the unit of the label
    for a regression. Unset: it is shown, and nothing is refused."""
    bins: int = Field(10, ge=2, le=100)
    """Bins with equal numbers of rows."""
    confidence: Confidence = 0.95
    """Of the interval that is shown."""


class FairnessSpec(Spec):
    """How differently the model treats groups of rows. With `columns` and without `limits`, the gaps are shown, and a
    challenger with a larger gap than the champion's fails."""

    columns: dict[str, Grouping] = {}
    """Column of the events, or feature → the groups that are compared with each other. A column need not be a feature
    of the model: it is often better not one."""
    limits: dict[Name, Annotated[float, Field(ge=0)]] = {}
    """Measure → the largest gap between two groups of a column that may be promoted. docs/verdict.md lists the measures
    of each kind of task."""
    maximum_change: dict[Name, Annotated[float, Field(ge=0)]] = {}
    """Measure → by how much a gap may be larger than the champion's. Without an entry, a gap may not be larger beyond
    chance."""
    confidence: Confidence = 0.95
    """The confidence with which the intervals of all gaps hold together."""
    minimum_rows: MinimumRows = 100
    """A group with fewer rows is too small for a measure. For a rate among positive rows, only those count."""
