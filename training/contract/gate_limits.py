"""Sections of `evaluation`: what is measured of a challenger besides its metrics, and which limits it must keep.

Without a limit a number is only reported. Everything fails closed: a limit whose number is missing is not kept.
"""

from typing import Annotated

from pydantic import Field

from training.contract.base import Spec
from training.contract.feeds import Share

_Limit = Annotated[float, Field(gt=0)]


class ChangeLimits(Spec):
    """The most that predictions may change: the share of decisions that flip. For a regression, the mean change of the
    prediction, in distances between the quartiles of the holdout's predictions."""

    noise: Annotated[float, Field(ge=0)] | None = None
    missing: Annotated[float, Field(ge=0)] | None = None
    boundary: Annotated[float, Field(ge=0)] | None = None


class RobustnessSpec(Spec):
    """How predictions change when features do, within the rules of their columns."""

    noise: float = Field(0.1, gt=0, le=1)
    """Numbers get normal noise of this many standard deviations. In a column of categories, this share of the rows gets
    the category of another row."""
    missing: float = Field(0.1, gt=0, le=1)
    """The share of values that go missing, in each column that may be missing."""
    rows: int = Field(2000, ge=10)
    """The most rows of the holdout that are changed."""
    maximum_changed: ChangeLimits = ChangeLimits()
    """Unset ones are reported and limit nothing."""


class CostLimits(Spec):
    """What the training of the challenger and its model may take. Prices are those of retraining.costs."""

    maximum_seconds: _Limit | None = None
    """Wall time."""
    maximum_cpu_seconds: _Limit | None = None
    maximum_price: Annotated[float, Field(ge=0)] | None = None
    maximum_model_mib: _Limit | None = None
    """The size of model.onnx."""


class LatencySpec(Spec):
    """How long ONNX Runtime takes for one row, on one thread of the machine that evaluates."""

    maximum_p99_ms: _Limit | None = None
    """The budget. Unset: it is reported and limits nothing."""
    rounds: int = Field(5, ge=1, le=100)
    """The best round counts: other load on the machine only makes a round slower."""
    calls: int = Field(200, ge=20, le=10_000)
    """Of each round."""


class StabilitySpec(Spec):
    seeds: int = Field(0, ge=0, le=20)
    """The challenger is fitted again with this many other seeds. Its gain over the champion must exceed the standard
    deviation of the primary metric over the seeds. 0: it is not."""


class LeakageSpec(Spec):
    """When a person is asked whether a feature leaks the label. Docs: docs/verdict.md."""

    maximum_explained: Share | None = 0.95
    """The most that one feature alone may explain: R² of a regression, 2 · AUC − 1 of a class. `null`: not tested."""
    share_of_model: Share = 0.95
    """A feature that explains more is suspicious only if the whole model explains hardly more: with this share or more
    of it."""
    expected: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Features that a person has looked at: they may explain everything."""
    least_error_left: Share | None = 0.25
    """The challenger's distance from a perfect primary metric must be at least this share of the best former
    champion's, on its own holdout. `null`: not tested."""
