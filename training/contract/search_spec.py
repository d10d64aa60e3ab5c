"""The section `training.search` of a model spec: which parameters are tried, and what the search may cost."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from training.contract.base import Spec
from training.contract.problems import Mistake, raise_contradictions
from training.contract.registries import KnownEstimator


class ParameterSpace(Spec):
    """The values of one parameter that are tried: a range from `low` to `high`, or `choices`."""

    low: int | float | None = None
    """The least value. The parameter is a whole number when `low`, `high` and `step` are written without a point."""
    high: int | float | None = None
    """The greatest value."""
    log: bool = False
    """Draw from the logarithm, for parameters such as a learning rate, where 0.01 to 0.02 is as far as 0.1 to 0.2."""
    step: int | float | None = Field(None, gt=0)
    """Try only `low`, `low + step`, …"""
    choices: Annotated[tuple[Any, ...] | None, Field(strict=False)] = None
    """Any values, such as texts or lists. No order between them is assumed."""

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> "ParameterSpace":
        raise_contradictions(self._choice_mistakes() if self.choices is not None else self._range_mistakes())
        return self

    @property
    def whole(self) -> bool:
        """Whether the parameter is a whole number."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of the values that are tried."""
        if self.choices is not None:
            return value in self.choices
        if not isinstance(value, int | float) or self.low is None or self.high is None:
            return False
        step = self.step or (1 if self.whole else None)
        steps = 0.0 if step is None else (value - self.low) / step
        # Not exactly: (0.3 - 0.1) / 0.1 is 1.9999999999999998.
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-8

    def _choice_mistakes(self) -> list[Mistake]:
        given = [name for name in ("low", "high", "step") if getattr(self, name) is not None]
        given += ["log"] if self.log else []
        if given:
            return [(given[0], "is given beside choices", "Write either a range or choices.")]
        assert self.choices is not None
        if len(self.choices) < 2:
            return [("choices", "needs two values or more", "Set a single value in training.estimators.")]
        if any(value in self.choices[:at] for at, value in enumerate(self.choices)):
            return [("choices", "holds a value more than once", "List each value once.")]
        return []

    def _range_mistakes(self) -> list[Mistake]:
        missing = [name for name in ("low", "high") if getattr(self, name) is None]
        if missing:
            return [(missing[0], "is missing", "Write `low` and `high`, or `choices`.")]
        assert self.low is not None
        assert self.high is not None
        if self.low >= self.high:
            return [("low", f"is {self.low:g}, not below high ({self.high:g})", "Swap or correct the two.")]
        if self.log and self.low <= 0:
            return [("low", f"is {self.low:g}, but has no logarithm", "Write a `low` above 0, or leave `log` out.")]
        if self.log and self.step is not None:
            return [("step", "is given beside log", "Write one of them.")]
        if self.step is not None and self.step > self.high - self.low:
            return [("step", f"is {self.step:g}, more than the whole range", "Write a smaller step.")]
        return []


class SearchSpec(Spec):
    """Try parameters on folds of the training window, and fit the best on all of it. Validation is always later than
    training, with the label delay between. The holdout is not used."""

    spaces: dict[KnownEstimator, Annotated[dict[str, ParameterSpace], Field(min_length=1)]] = Field(min_length=1)
    """Estimator → parameter → the values that are tried. An estimator without a space is fitted as it is. The first
    trial has the parameters that would be used without a search, so far as the space has them."""
    trials: int = Field(20, ge=2, le=10_000)
    """The most trials of each estimator, of all its parts together. Pruned and failed trials count."""
    minutes: float = Field(30.0, gt=0, le=300)
    """After this time no new trial begins. The time of a search that was stopped and resumed counts as well. Each part
    has this time."""
    parallel: int = Field(1, ge=1, le=32)
    """Into how many parts the trials of each estimator are divided. Above 1 each part is a task of its own, and so a
    pod with the launcher `pod`. The parts do not learn from each other's trials."""
    folds: int = Field(3, ge=1, le=50)
    """How many times a trial is fitted and validated. Its value is the mean of `evaluation.primary` over the folds."""
    fold_days: int = Field(7, ge=1, le=36_500)
    """Days of each validation. They are the last days of the training window, without a gap."""
    train_days: int | None = Field(None, ge=1, le=36_500)
    """The most days that a fold trains on. Unset: all days of the window before its validation and the label delay."""

    @model_validator(mode="after")
    def _has_a_trial_for_each_part(self) -> "SearchSpec":
        if self.parallel > self.trials:
            what = f"is {self.parallel}, more than the {self.trials} trials"
            raise_contradictions([("parallel", what, "Lower `parallel`, or raise `trials`.")])
        return self

    def trials_of(self, part: int) -> int:
        """The most trials of part number `part`, from 0. Those of all parts add up to `trials`."""
        share, rest = divmod(self.trials, self.parallel)
        return share + (part < rest)

    def days_needed(self, delay_days: int) -> int:
        """The least days of a training window with room for all folds."""
        return self.folds * self.fold_days + delay_days + (self.train_days or 1)
