"""The rollout plan of a model spec: the stages of a rollout, and the guards that stop it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from training.contract.base import LONGEST_MINUTES, Spec
from training.contract.problems import raise_contradictions
from training.contract.traffic import Mode

Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(gt=0, le=100)]


class StageSpec(Spec):
    """One stage. It ends when `minutes` have passed and the new version has scored `requests`."""

    mode: Mode
    weight: Percent | None = None
    """For `canary` and `ab`: the percentage of keys that the new version answers."""
    experiment: str = Field("", pattern=r"^[a-z0-9_.-]{0,60}$")
    """For `ab`: its name. It also selects the keys: experiments with one name use the same keys."""
    requests: int = Field(0, ge=0)
    """Requests that the new version must score, over all replicas. Each row of a batch counts as a request."""
    minutes: float = Field(0, ge=0, le=LONGEST_MINUTES)
    """The minimum duration."""
    maximum_minutes: float = Field(60, gt=0, le=LONGEST_MINUTES)
    """How long to wait for `requests` before `on_silence` decides."""
    on_silence: Literal["promote", "hold", "fail"] = "hold"
    """What to do with too few requests: `promote` continues with the next stage, unless the share of failed requests or
    of NaN exceeds its limit; `hold` fails the task and stays in the stage; `fail` rolls back."""

    @model_validator(mode="after")
    def _fields_of_its_mode(self) -> "StageSpec":
        if (self.weight is not None) != (self.mode in ("canary", "ab")):
            raise ValueError("weight must be set for canary and ab, and for no other mode")
        if bool(self.experiment) != (self.mode == "ab"):
            raise ValueError("experiment must be set for ab, and for no other mode")
        if self.mode != "full" and not (self.requests or self.minutes):
            raise ValueError(f"a {self.mode} stage needs requests, minutes, or both, to know when it ends")
        if self.minutes > self.maximum_minutes:
            raise ValueError("minutes must not be more than maximum_minutes")
        return self


class GuardSpec(Spec):
    """The limits for a new version in every stage. None switches a guard off.

    A guard on counts trips when the excess is beyond chance, by an exact binomial test. Guards are checked about twice
    a second, hence the high confidence.
    """

    confidence: float = Field(0.999, gt=0.5, lt=1)
    minimum_requests: int = Field(50, ge=1)
    """With fewer requests, times and comparisons are checked only when the stage ends. Then the shares of failed
    requests and of NaN are compared with their limits without a test for chance."""
    maximum_error_rate: Share | None = 0.01
    """Share of requests that the version could not score. Each row of a batch counts as a request."""
    maximum_nan_share: Share | None = 0.0
    """Share of scores that were not numbers."""
    maximum_p99_ms: float | None = Field(250.0, gt=0)
    """The 99th percentile of the time from receipt to answer. In a shadow stage, the time of scoring alone."""
    maximum_p99_ratio: float | None = Field(3.0, gt=0)
    """The 99th percentile relative to the champion's in the same stage."""
    p99_slack_ms: float = Field(25.0, ge=0)
    """The 99th percentile may exceed the champion's by this much whatever the ratio, because short times are noisy."""
    maximum_score_shift: float | None = Field(None, gt=0)
    """Population stability index of the version's scores against the champion's on the same requests. By convention 0.1
    is a small shift and 0.25 a large one (Siddiqi, Credit Risk Scorecards, 2006). Of classes, the shares of the
    likeliest ones are compared. Default: none for a binary task, because two estimators may rank events equally with
    differently calibrated scores; 0.25 for multiclass and regression."""
    maximum_alert_ratio: float | None = Field(3.0, gt=0)
    """Share of alerts relative to the champion's on the same requests, or to `task.decision.alert_rate` if that
    is higher. Only binary tasks raise alerts."""
    minimum_alert_ratio: float | None = Field(None, gt=0, lt=1)
    """Lower limit for the share of alerts, relative to the champion's."""
    minimum_agreement: Share | None = 0.8
    """Share of requests, scored by both, on which both decide the same. Two numbers agree when the new one lies in the
    champion's interval; without intervals, when they are closer than the quartiles of the champion's holdout."""
    maximum_quality_drop: float | None = Field(None, ge=0)
    """How far the upper end of the paired bootstrap interval of the primary metric, the version minus the champion on
    the same labelled requests, may be below zero. Use it in stages that last longer than the label delay."""
    quality_minutes: float = Field(10.0, gt=0, le=LONGEST_MINUTES)
    """Time between two checks of the quality."""
    maximum_skew: Share | None = None
    """Share of logged feature values that the latest audit could not explain. Without an audit there is no rollout."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "GuardSpec":
        low, high = self.minimum_alert_ratio, self.maximum_alert_ratio
        if low is not None and high is not None and low > high:
            what = f"is {low:g}, above maximum_alert_ratio {high:g}, so no version could pass"
            raise_contradictions([("minimum_alert_ratio", what, "Swap or correct the two ratios.")])
        return self


class RolloutSpec(Spec):
    timeout_seconds: int = Field(120, ge=1, le=LONGEST_MINUTES * 60)
    """The time in which all replicas must have applied a stage."""
    sticky_by: str = ""
    """The request column whose value decides which version answers; empty: evaluation.entity."""
    stages: Annotated[tuple[StageSpec, ...], Field(strict=False)] = (StageSpec(mode="full"),)
    """The stages in their order. The last one is `full`. The first version of a model starts there."""
    guards: GuardSpec = GuardSpec()

    @model_validator(mode="after")
    def _ends_in_full(self) -> "RolloutSpec":
        modes = [stage.mode for stage in self.stages]
        if not modes or modes[-1] != "full" or "full" in modes[:-1]:
            raise ValueError("full must be the last stage, and only the last")
        return self
