"""What a retraining policy is: a pure function from what monitoring found, and what was before, to advice.

A policy advises; the broker (training/domain/retraining_decision.py) decides on the request that follows. Policies are
members of the registry POLICIES, one module each in training/domain/policies. They read neither clock nor ledger, so a
backtest replays them, with the looks and requests of its own.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from training.contract.messages import Degradation, DriftResult, PerformanceResult
from training.contract.model_spec import ModelSpec, Trigger
from training.contract.registries import POLICIES
from training.domain.monitoring import Look
from training.domain.retraining import History, history_needed


@dataclass(frozen=True)
class Evidence:
    """What monitoring found as of a day of data, about the version that serves."""

    as_of: date
    champion_version: int | None = None
    drift: DriftResult | None = None
    performance: PerformanceResult | None = None
    history_days: int = 0
    """Days of events before the knowledge horizon that have their labels; only a first training needs it."""

    @property
    def look(self) -> Look | None:
        """What the ledger keeps of it; None without a champion."""
        if self.champion_version is None:
            return None
        return Look.of(self.as_of, self.champion_version, self.drift, self.performance)


@dataclass(frozen=True)
class Advice:
    """Whether to ask for a training, and the numbers that this rests on."""

    text: str
    """The reason; or, without triggers, what was found and what would have been a reason."""
    triggers: tuple[Trigger, ...] = ()
    """What asks, the strongest first. Empty: nothing does."""
    numbers: dict[str, float] = field(default_factory=dict)
    test: Degradation | None = None
    """The test of performance, if it is a reason: the broker lets a strong one break the cooldown."""

    @property
    def asks(self) -> bool:
        return bool(self.triggers)


class Policy(Protocol):
    """A member of the registry POLICIES."""

    def __call__(self, evidence: Evidence, history: History, spec: ModelSpec) -> Advice:
        """Whether what was found is a reason to train the model again.

        There is a champion. `history` holds the looks, requests and decisions before; its looks may or may not hold
        that of `evidence`. Only what monitoring found is judged here: requests by schedule, code, new data or a person
        do not come this way.
        """
        ...


def advise(evidence: Evidence, history: History, spec: ModelSpec) -> Advice:
    """The advice of the spec's policy; without a champion, whether the history suffices for a first one.

    Raises ConfigError when the policy cannot be imported.
    """
    if evidence.drift is not None and evidence.drift.outcome == "no champion":
        needed, days = history_needed(spec), evidence.history_days
        if days >= needed:
            return Advice(f"no champion yet, and {days} days of labelled history", ("first",))
        return Advice(f"no champion yet, and {days} days of labelled history; a first training needs {needed}")
    policy: Policy = POLICIES.find(spec.retraining.policy)
    return policy(evidence, history, spec)
