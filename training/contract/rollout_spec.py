"""The rollout plan of a model spec: through which stages a new version comes into service, and what stops it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from training.contract.base import Spec
from training.contract.problems import raise_contradictions
from training.contract.traffic import Mode

Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(gt=0, le=100)]


class StageSpec(Spec):
    """One stage. It is over when `minutes` have passed and the version has scored `requests`, both where given."""

    mode: Mode
    weight: Percent | None = None
    """Of `canary` and `ab`: the percentage of keys that the new version answers."""
    experiment: str = Field("", pattern=r"^[a-z0-9_.-]{0,60}$")
    """Of `ab`: its name. It also decides which keys are in: the same name, the same keys."""
    requests: int = Field(0, ge=0)
    """Requests (rows of a batch count one each) that the new version must have scored, over all replicas."""
    minutes: float = Field(0, ge=0)
    """How long it lasts at least."""
    maximum_minutes: float = Field(60, gt=0)
    """How long it is waited for `requests` before `on_silence` decides."""
    on_silence: Literal["promote", "hold", "fail"] = "hold"
    """With too little traffic: `promote` goes on to the next stage, unless the shares of failed requests or NaN exceed
    their limits; `hold` fails the task and stays in the stage; `fail` rolls back."""

    @model_validator(mode="after")
    def _fields_of_its_mode(self) -> "StageSpec":
        if (self.weight is not None) != (self.mode in ("canary", "ab")):
            raise ValueError("weight belongs to canary and ab, and to no other mode")
        if bool(self.experiment) != (self.mode == "ab"):
            raise ValueError("experiment names an ab stage, and no other")
        if self.mode != "full" and not (self.requests or self.minutes):
            raise ValueError(f"a {self.mode} stage must say when it is over: requests, minutes, or both")
        if self.minutes > self.maximum_minutes:
            raise ValueError("minutes must not be more than maximum_minutes")
        return self


class GuardSpec(Spec):
    """What a new version must keep to in every stage; None: not guarded.

    A guard that counts trips when the breach is beyond chance, by an exact binomial test. It is looked at about twice a
    second, hence the high confidence.
    """

    confidence: float = Field(0.999, gt=0.5, lt=1)
    minimum_requests: int = Field(50, ge=1)
    """With fewer, times and comparisons are judged only when the stage ends, and the shares of failed requests and NaN
    are then compared with their limits without a test for chance."""
    maximum_error_rate: Share | None = 0.01
    """Share of its requests that the version could not score. Each row of a batch counts as a request."""
    maximum_nan_share: Share | None = 0.0
    """Scores that were not numbers."""
    maximum_p99_ms: float | None = Field(250.0, gt=0)
    """The 99th percentile of the time from receipt to answer; in a shadow stage, of the scoring alone."""
    maximum_p99_ratio: float | None = Field(3.0, gt=0)
    """The same, against the champion's in the same stage."""
    p99_slack_ms: float = Field(25.0, ge=0)
    """What the p99 may exceed the champion's by, whatever the ratio: on a busy machine small times are noise."""
    maximum_score_shift: float | None = Field(None, gt=0)
    """Population stability index of the version's scores against the champion's on the same requests. By custom 0.1 is
    a small shift and 0.25 a large one (Siddiqi, Credit Risk Scorecards, 2006). Not guarded unless set: two estimators
    may rank alike and be calibrated otherwise."""
    maximum_alert_ratio: float | None = Field(3.0, gt=0)
    """Share of requests flagged, against the champion's on the same requests, or `decision.alert_rate` if that is
    more."""
    minimum_alert_ratio: float | None = Field(None, gt=0, lt=1)
    """The same, downwards, against the champion's alone."""
    minimum_agreement: Share | None = 0.8
    """Share of the same requests on which both decide alike."""
    maximum_quality_drop: float | None = Field(None, ge=0)
    """With late labels: how far the upper end of the paired bootstrap interval of the primary metric, the version
    minus the champion on the same requests, may lie below zero. For stages longer than the labels' delay."""
    quality_minutes: float = Field(10.0, gt=0)
    """Between two looks at the labels."""
    maximum_skew: Share | None = None
    """Values in the latest skew audit that the features' history does not explain. No audit yet: no rollout."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "GuardSpec":
        low, high = self.minimum_alert_ratio, self.maximum_alert_ratio
        if low is not None and high is not None and low > high:
            what = f"is {low:g}, above maximum_alert_ratio {high:g}: no version could pass"
            raise_contradictions([("minimum_alert_ratio", what, "Swap or correct the two ratios.")])
        return self


class RolloutSpec(Spec):
    timeout_seconds: int = Field(120, ge=1)
    """In which every replica must have taken up a stage."""
    sticky_by: str = ""
    """The column of a request that decides which version answers it; empty: the entity of evaluation."""
    stages: Annotated[tuple[StageSpec, ...], Field(strict=False)] = (StageSpec(mode="full"),)
    """In their order, ending in `full`. The first champion goes straight there."""
    guards: GuardSpec = GuardSpec()

    @model_validator(mode="after")
    def _ends_in_full(self) -> "RolloutSpec":
        modes = [stage.mode for stage in self.stages]
        if not modes or modes[-1] != "full" or "full" in modes[:-1]:
            raise ValueError("stages must end with full, and have it nowhere else")
        return self
