"""Replay history under a retraining policy: which requests are made, granted and trained, and what serves from when.

The broker and the policies are those of the live loop (training/domain/retraining_policy.py); the world says what
monitoring would have found and what a training would have given. Nothing here depends on the clock. A look or a
training on a day knows what was known when the day began; a new champion serves from the next day on, so the rollout is
taken to last less than a day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal, NamedTuple, Protocol

from training.contract.base import Days, Frozen
from training.contract.messages import DriftResult, PerformanceResult
from training.contract.model_spec import ModelSpec, Trigger
from training.domain.identity import request_id
from training.domain.monitoring import Look
from training.domain.retraining import Decision, History, Request
from training.domain.retraining_decision import decide
from training.domain.retraining_policy import Advice, Evidence, advise
from training.domain.windows import learnable_from

Outcome = Literal["promoted", "kept", "failed", "refused"]


class Policy(NamedTuple):
    """When a policy asks for a training: every so many days, or when a policy of the live loop advises it, which looks
    at drift, at performance, or at both. None of them: never."""

    name: str
    every_days: int | None = None
    drift: bool = False
    performance: bool = False

    @property
    def looks(self) -> bool:
        return self.drift or self.performance


POLICIES: Mapping[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("never"),
        Policy("weekly", every_days=7),
        Policy("monthly", every_days=28),
        Policy("drift", drift=True),
        Policy("performance", performance=True),
        Policy("combined", drift=True, performance=True),
        Policy("cost_aware", drift=True, performance=True),
    )
}


class Served(Frozen):
    """The model that serves from `since` on, in the period of the replay."""

    model: str
    """The id of its training in the world."""
    version: int
    """Its number among the champions of this replay, from 1."""
    since: date


class Judged(NamedTuple):
    """What a training gave: the id of the challenger's training, and whether it may take the champion's place.

    An empty `model`: the training failed, and `why` says why.
    """

    model: str
    promote: bool
    why: str


class World(Protocol):
    """What would have happened. It may take long; the same call gives the same answer."""

    def drift(self, day: date, champion: Served) -> DriftResult:
        """What monitoring finds as of `day`."""
        ...

    def performance(self, day: date, champion: Served) -> PerformanceResult:
        """What monitoring finds as of `day` in the events since the champion serves."""
        ...

    def train(self, day: date, champion: Served, change: date | None) -> Judged:
        """Train as of `day` and compare with the champion. `change`: the day since which the data has changed."""
        ...


class Asked(Frozen):
    """A request to train, and what became of it."""

    day: date
    trigger: Trigger
    reason: str
    outcome: Outcome
    """`kept`: trained, and the verdict kept the champion. `refused`: by the broker, nothing was trained."""
    why: str
    model: str = ""
    """The id of the challenger's training, if there was one."""
    before: str = ""
    """The id of the champion's training then."""


class Replay(Frozen):
    """What a policy does in the period of a replay."""

    policy: str
    asked: list[Asked] = []
    served: list[Served]

    @property
    def trainings(self) -> list[Asked]:
        return [each for each in self.asked if each.outcome != "refused"]

    def serving(self, day: date) -> Served:
        """What serves on `day`. The first champion serves on all days before it was replaced."""
        return [each for each in self.served if each.since <= day or each is self.served[0]][-1]


@dataclass
class _Ledger:
    """The requests and decisions of one replay."""

    requests: dict[str, Request] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)

    def history(self) -> History:
        return History(dict(self.requests), dict(self.decisions), dict(self.taken), looks=list(self.looks))


def replay(policy: Policy, looks: Sequence[date], first: Served, world: World, spec: ModelSpec) -> Replay:
    """What `policy` does when `first` serves at the beginning and it looks on the days `looks`, in order.

    The days of a schedule count from the day before `first` serves; a day that is not among `looks` moves to the next
    one. Reasons, requests and decisions are those of the step decide_retraining.
    """
    spec = _with_policy(policy, spec)
    champion, ledger, asked, served = first, _Ledger(), list[Asked](), [first]
    scheduled = first.since - timedelta(days=1)
    for day in looks:
        advice, performance = None, None
        if policy.every_days is not None and (day - scheduled).days >= policy.every_days:
            advice, scheduled = Advice("schedule", ("schedule",)), day
        elif policy.looks:
            drift = world.drift(day, champion) if policy.drift else None
            performance = world.performance(day, champion) if policy.performance else None
            ledger.looks.append(Look.of(day, champion.version, drift, performance))
            advice = advise(Evidence(day, champion.version, drift, performance), ledger.history(), spec)
        if advice is None or not advice.asks:
            continue
        change = performance.change if performance else None
        made = _ask(day, advice, change, champion, ledger, world, spec)
        asked.append(made)
        if made.outcome == "promoted":
            champion = Served(model=made.model, version=champion.version + 1, since=day + timedelta(days=1))
            served.append(champion)
    return Replay(policy=policy.name, asked=asked, served=served)


def _with_policy(policy: Policy, spec: ModelSpec) -> ModelSpec:
    """The spec as it would be with this policy."""
    if not policy.looks:
        return spec
    return spec.model_copy(update={"retraining": spec.retraining.model_copy(update={"policy": policy.name})})


def _ask(
    day: date, advice: Advice, change: date | None, champion: Served, ledger: _Ledger, world: World, spec: ModelSpec
) -> Asked:
    """Make the request, let the broker decide on it, and train when it is granted."""
    after, delay = spec.training.after_change, spec.label_spec.delay_days
    request = Request(
        id=request_id(spec.name, advice.triggers[0], day, {"champion": champion.version}),
        trigger=advice.triggers[0],
        also=advice.triggers[1:],
        seen=day,
        as_of=day,
        reason=advice.text,
        champion_version=champion.version,
        change=change,
        learnable_from=learnable_from(change, after, delay) if change and after else None,
        test=advice.test,
    )
    decision = decide(request, ledger.history(), spec.retraining, spec.monitoring.window_days)
    ledger.requests[request.id], ledger.decisions[request.id] = request, decision
    found = {"day": day, "trigger": request.trigger, "reason": request.reason, "before": champion.model}
    if decision.outcome != "granted":
        return Asked(**found, outcome="refused", why=decision.why)
    ledger.taken[request.id] = f"backtest of {day}"
    judged = world.train(day, champion, change)
    outcome: Outcome = "failed" if not judged.model else "promoted" if judged.promote else "kept"
    return Asked(**found, outcome=outcome, why=judged.why, model=judged.model)


def look_days(period: Days, every: int) -> list[date]:
    """The days on which policies look: every so many days after the first of `period`, which is that of the first
    champion's training."""
    return [period.start + timedelta(days=n) for n in range(every, len(period), every)]


def weeks(period: Days) -> list[Days]:
    """The whole weeks of `period` in which quality is measured, from the day after its first: the first that a model
    trained then serves."""
    start = period.start + timedelta(days=1)
    return [
        Days(start=start + timedelta(days=7 * n), end=start + timedelta(days=7 * (n + 1)))
        for n in range((period.end - start).days // 7)
    ]
