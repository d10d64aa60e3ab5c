"""Whether to train: pure functions from what was found, what was decided before, and the spec's policy.

Days are days of data (a request's `seen`), never the clock: a replay decides as the original did. The order in which
earlier requests were decided does not matter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple

from training.contract.base import Frozen
from training.contract.messages import DriftResult, PerformanceResult, Snapshot
from training.contract.model_spec import ModelSpec, RetrainingSpec, Trigger

#: Triggers that watch for the same thing share one cooldown. The others come from a person, a deployment or a schedule.
COOLDOWN_GROUPS: tuple[frozenset[Trigger], ...] = (
    frozenset({"drift", "performance"}),
    frozenset({"first"}),
    frozenset({"new_data"}),
)
BUDGET_DAYS = 30
#: Runs that may take one request, each after the one before has failed: a lasting cause would fail them all.
MAXIMUM_RUNS = 3


class Request(Frozen):
    """A request to train: the body of a ledger entry of kind `request`."""

    id: str
    trigger: Trigger
    seen: date
    """The day of data on which the reason was seen; the policy counts in these."""
    as_of: date
    """The knowledge horizon to train with."""
    reason: str
    champion_version: int | None = None
    force: bool = False
    requested_by: str = ""
    """The user who started the run by hand. Empty: a run by itself, or an entry of Perennial 0.1."""
    evidence: dict[str, Any] = {}


class Decision(Frozen):
    """What became of a request: the body of a ledger entry of kind `decision`.

    A run takes a granted request. When the run fails it releases the request, and another run may take it.
    """

    request_id: str
    outcome: Literal["granted", "refused", "taken", "released", "given back"]
    """Perennial 0.1 wrote `given back` for `released`."""
    why: str = ""
    run: str = ""
    """Of `taken` and `released`: the training run."""
    snapshot: Snapshot | None = None
    """Of `taken`: what the run reads. Perennial 0.1 did not write it."""


@dataclass(frozen=True)
class History:
    """What the ledger knows of one model's requests, oldest first."""

    requests: dict[str, Request]
    #: By request: granted or refused.
    decisions: dict[str, Decision]
    #: By request: the run that has it.
    taken: dict[str, str]
    #: By request that a run has: what the run reads, where the ledger says it.
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    #: By request: how many runs released it.
    released: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, requests: Iterable[Mapping[str, Any]], decisions: Iterable[Mapping[str, Any]]) -> "History":
        """From the bodies of the ledger's entries."""
        known = [Request.model_validate(body) for body in requests]
        made = [Decision.model_validate(body) for body in decisions]
        taken: dict[str, str] = {}
        snapshots: dict[str, Snapshot] = {}
        released: dict[str, int] = {}
        for decision in made:
            id_ = decision.request_id
            if decision.outcome == "taken":
                taken[id_] = decision.run
                if decision.snapshot is not None:
                    snapshots[id_] = decision.snapshot
            elif decision.outcome in ("released", "given back"):
                taken.pop(id_, None)
                snapshots.pop(id_, None)
                released[id_] = released.get(id_, 0) + 1
        return cls(
            requests={request.id: request for request in known},
            decisions={d.request_id: d for d in made if d.outcome in ("granted", "refused")},
            taken=taken,
            snapshots=snapshots,
            released=released,
        )

    @cached_property
    def granted(self) -> frozenset[str]:
        return frozenset(id_ for id_, decision in self.decisions.items() if decision.outcome == "granted")

    @property
    def waiting(self) -> list[str]:
        """Granted requests that no run has taken yet, oldest first."""
        return [id_ for id_ in self.requests if id_ in self.granted and id_ not in self.taken]


class Reason(NamedTuple):
    trigger: Trigger
    text: str


def history_needed(spec: ModelSpec) -> int:
    """Days of events before the knowledge horizon that a first training needs: see domain/windows.py."""
    return spec.training.window_days + spec.training.holdout_days + 2 * spec.label_spec.delay_days


def reason_to_train(
    drift: DriftResult | None, performance: PerformanceResult | None, spec: ModelSpec, history_days: int
) -> Reason | None:
    """The strongest reason in what was found; None when there is none.

    `history_days`: days of events before the knowledge horizon that have their labels; only a first training needs it.
    Measured performance says more than drift, which only suggests that performance may suffer.
    """
    if performance is not None and performance.degraded:
        primary = spec.evaluation.primary
        now, before = performance.current.get(primary), performance.reference.get(primary)
        text = f"{primary} {_number(now)} on matured labels, {_number(before)} on the holdout"
        return Reason("performance", text + (f": {performance.test}" if performance.test else ""))
    if drift is None:
        return None
    if drift.drifted:
        drifted = sorted((c for c, d in drift.columns.items() if d.drifted), key=lambda c: -drift.columns[c].score)
        share = f"{drift.drifted_share:.0%} of the features drifted"
        return Reason("drift", f"{share} in {drift.window}: {', '.join(drifted)}")
    if drift.outcome == "no champion" and history_days >= history_needed(spec):
        return Reason("first", f"no champion yet, and {history_days} days of labelled history")
    return None


def decide(request: Request, history: History, policy: RetrainingSpec, window_days: int) -> Decision:
    """Grant the request, or refuse it and say why. `history` holds the earlier requests. A person's is always granted.

    `window_days` is the length of a drift window: two are successive when they do not overlap and none fits between.
    """
    why = _refusal(request, history, policy, window_days)
    if why is not None:
        return Decision(request_id=request.id, outcome="refused", why=why)
    return Decision(request_id=request.id, outcome="granted", why="Granted.")


def _refusal(request: Request, history: History, policy: RetrainingSpec, window_days: int) -> str | None:
    if request.id in history.granted:
        return "The same request was granted before."
    if request.trigger == "person":
        return None
    others = [r for r in history.requests.values() if r.id != request.id]
    granted = [r for r in others if r.id in history.granted]
    return (
        _not_persistent(request, others, policy.persistence, window_days)
        or _cooling_down(request, granted, policy.cooldown_days, history.taken)
        or _over_budget(request, granted, policy.budget_per_30_days)
    )


def _not_persistent(request: Request, others: list[Request], persistence: int, window_days: int) -> str | None:
    """Drift in one window may be chance: the same champion must show it in `persistence` successive windows.

    Windows that overlap share their evidence, so they count once. Each window that counts ends at least `window_days`
    before the next. It ends less than twice that before it: otherwise a whole window between them was without drift.
    The longest such row of windows that ends with the request's own counts.
    """
    if request.trigger != "drift":
        return None
    days = {r.seen for r in others if (r.trigger, r.champion_version) == ("drift", request.champion_version)}
    successive, reached = 0, {request.seen}
    while reached and successive < persistence:
        successive += 1
        reached = {d for d in days for next_ in reached if window_days <= (next_ - d).days < 2 * window_days}
    if successive >= persistence:
        return None
    return f"Drift was seen in {successive} of {persistence} successive windows that the policy asks for."


def _cooling_down(request: Request, granted: list[Request], cooldown_days: int, taken: Mapping[str, str]) -> str | None:
    group = next((group for group in COOLDOWN_GROUPS if request.trigger in group), frozenset[Trigger]())
    near = [r for r in granted if r.trigger in group and abs((r.seen - request.seen).days) < cooldown_days]
    if not near:
        return None
    last = max(near, key=lambda r: (r.seen, r.id))
    why = f"Cooldown: {last.id} was granted on {last.seen}, less than {cooldown_days} days of data away"
    return f"{why}; run {taken[last.id]} took it." if last.id in taken else f"{why}; no run has taken it yet."


def _over_budget(request: Request, granted: list[Request], budget: int) -> str | None:
    """No 30 successive days may hold more granted requests than the budget, in whatever order the requests come."""
    days = [r.seen for r in granted if r.trigger != "person"]
    length = timedelta(days=BUDGET_DAYS)
    starts = [day for day in (*days, request.seen) if day <= request.seen < day + length]
    fullest = max(sum(start <= day < start + length for day in days) for start in starts)
    if fullest < budget:
        return None
    return f"Budget: {fullest} trainings were granted in {BUDGET_DAYS} days of data, the policy allows {budget}."


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
