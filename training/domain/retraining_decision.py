"""The broker: grant a request to train or refuse it, from what was decided before and what the spec allows.

Pure functions. Each refusal says the numbers that it rests on and what would have changed it. The order in which
earlier requests were decided does not matter.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from training.contract.model_spec import RetrainingSpec, Trigger
from training.domain.monitoring import Look
from training.domain.retraining import Decision, History, Request

#: Triggers that watch for the same thing share one cooldown. The others come from a person, a deployment or a schedule.
COOLDOWN_GROUPS: tuple[frozenset[Trigger], ...] = (
    frozenset({"drift", "performance"}),
    frozenset({"first"}),
    frozenset({"new_data"}),
)
#: Triggers whose state lasts: monitoring finds it again in each look until it is good.
LASTING: frozenset[Trigger] = frozenset({"drift", "performance"})
BUDGET_DAYS = 30


class _Refusal(NamedTuple):
    why: str
    numbers: dict[str, float | str]


def decide(request: Request, history: History, policy: RetrainingSpec, window_days: int) -> Decision:
    """Grant the request, or refuse it and say why. `history` holds the earlier requests. A person's is always granted.

    `window_days` is the length of a drift window: two are successive when they do not overlap and none fits between.
    """
    others = [r for r in history.requests.values() if r.id != request.id]
    granted = [r for r in others if r.id in history.granted]
    if request.id in history.granted:
        return Decision(request_id=request.id, outcome="refused", why="The same request was granted before.")
    spent = _costs(granted, history, policy)
    if request.trigger != "person":
        refusal = (
            _too_soon(request)
            or _not_persistent(request, others, policy.persistence, window_days)
            or _cooling_down(request, granted, policy, history.taken)
            or _not_recovered(request, granted, history.looks, policy.cooldown_days, window_days)
        )
        if refusal is None and (joined := _joined(request, history)):
            return joined
        refusal = refusal or _over_budget(request, granted, policy) or _too_expensive(request, spent, policy)
        if refusal is not None:
            return Decision(request_id=request.id, outcome="refused", why=refusal.why, numbers=refusal.numbers)
    return _grant(request, granted, spent, policy)


def _grant(request: Request, granted: list[Request], spent: Mapping[date, float], policy: RetrainingSpec) -> Decision:
    trainings = _fullest(_trainings(granted), request.seen)
    numbers: dict[str, float | str] = {"granted_in_30_days": trainings, "budget": policy.budget_per_30_days}
    why = f"Granted: {trainings:g} of {policy.budget_per_30_days} trainings in {BUDGET_DAYS} days of data before it"
    if policy.maximum_cost_per_30_days is not None:
        cost = _fullest(spent, request.seen)
        numbers |= {"cost_in_30_days": cost, "maximum_cost": policy.maximum_cost_per_30_days}
        why += f", for {cost:g} of {policy.maximum_cost_per_30_days:g} {policy.costs.unit}".rstrip()
    price = policy.costs.training
    return Decision(request_id=request.id, outcome="granted", why=f"{why}.", numbers=numbers, cost=price)


def _joined(request: Request, history: History) -> Decision | None:
    """A granted request of the same kind that no run has taken yet will train soon: its training serves this one."""
    group = _group(request.trigger)
    open_ = [history.requests[id_] for id_ in history.waiting if history.requests[id_].trigger in group]
    if not open_:
        return None
    last = max(open_, key=lambda r: (r.seen, r.id))
    why = f"Joins {last.id}, which was granted on {last.seen} and which no run has taken yet."
    return Decision(request_id=request.id, outcome="joined", why=why, numbers={"joins": last.id})


def _too_soon(request: Request) -> _Refusal | None:
    """A training that knows no labels of what has changed would learn nothing new, and begin a cooldown."""
    soonest, change = request.learnable_from, request.change
    if soonest is None or request.as_of >= soonest:
        return None
    why = f"Too soon: enough days since the change on {change} will have labels as of {soonest}."
    return _Refusal(why, {"change": str(change), "learnable_from": str(soonest)})


def _not_persistent(request: Request, others: list[Request], persistence: int, window_days: int) -> _Refusal | None:
    """Drift in one window may be chance: the same champion must show it in `persistence` successive windows.

    Windows that overlap share their evidence, so they count once. Each window that counts ends at least `window_days`
    before the next. It ends less than twice that before it: otherwise a whole window between them was without drift.
    The longest such row of windows that ends with the request's own counts.
    """
    if request.trigger != "drift":
        return None
    days = {r.seen for r in others if "drift" in r.triggers and r.champion_version == request.champion_version}
    successive, reached = 0, {request.seen}
    while reached and successive < persistence:
        successive += 1
        reached = {d for d in days for next_ in reached if window_days <= (next_ - d).days < 2 * window_days}
    if successive >= persistence:
        return None
    why = f"Drift was seen in {successive} of {persistence} successive windows that the policy asks for."
    following = request.seen + timedelta(days=window_days)
    why += f" If it is seen again from {following} on, that is one window more."
    return _Refusal(why, {"successive_windows": successive, "persistence": persistence})


def _cooling_down(
    request: Request, granted: list[Request], policy: RetrainingSpec, taken: Mapping[str, str]
) -> _Refusal | None:
    """Right after a training another one has little new to learn, unless the loss is much larger than is allowed.

    A loss that large breaks the cooldown once: not when a request within the cooldown was granted for one before.
    """
    days, group, strong = policy.cooldown_days, _group(request.trigger), policy.cooldown_broken_by
    near = [r for r in granted if r.trigger in group and abs((r.seen - request.seen).days) < days]
    if not near:
        return None
    if strong is not None and _times_allowed(request) >= strong and not any(_times_allowed(r) >= strong for r in near):
        return None
    last = max(near, key=lambda r: (r.seen, r.id))
    run = f"run {taken[last.id]} took it" if last.id in taken else "no run has taken it yet"
    until = last.seen + timedelta(days=days)
    why = f"Cooldown: {last.id} was granted on {last.seen}, less than {days} days of data away; {run}."
    why += f" It would be granted from {until} on"
    numbers: dict[str, float | str] = {"cooldown_days": days, "granted_from": str(until)}
    if (test := request.test) is not None and test.allowed > 0 and strong is not None:
        needed = strong * test.allowed
        numbers |= {"lowest_drop": test.lowest_drop, "breaks_cooldown_at": needed}
        why += f", or with a drop of at least {needed:.3g} at the confidence of the test (now {test.lowest_drop:.3g})"
        why += " that has not broken this cooldown before" if _times_allowed(request) >= strong else ""
    return _Refusal(f"{why}.", numbers)


def _not_recovered(
    request: Request, granted: list[Request], looks: Sequence[Look], cooldown_days: int, window_days: int
) -> _Refusal | None:
    """A state that lasts asks again and again. After each training that has not ended it the wait doubles.

    The state of a trigger is over when another champion serves, or when a look at this one found it good: no drift, or
    a drop of at most half of what is allowed and of what was granted (not just below the limit), in a window that has
    no day of the one that was granted. The first repetition waits for the cooldown only: a training may fail because
    its window still held old data, and the next one may then help. Number n waits 2^(n-1) cooldowns, or windows where
    these are longer. A request with several triggers is granted as soon as one of them is.
    """
    found: list[tuple[date, Trigger, int]] = []
    own = [each for each in looks if each.champion_version == request.champion_version and each.as_of < request.seen]
    before = [r for r in granted if r.champion_version == request.champion_version and r.seen < request.seen]
    for trigger in request.triggers:
        same = [r for r in before if trigger in r.triggers]
        lasting = [
            r.seen
            for r in same
            if not any((look.as_of - r.seen).days >= window_days and _good(look, trigger, r) for look in own)
        ]
        if trigger not in LASTING or len(lasting) < 2:
            return None
        wait = max(cooldown_days, window_days) * 2 ** (len(lasting) - 1)
        found.append((max(lasting) + timedelta(days=wait), trigger, len(lasting)))
    until, trigger, trainings = min(found)
    if request.seen >= until:
        return None
    why = f"Not recovered: {trigger} was granted {trainings} trainings and has not been good since. It would be"
    why = f"{why} granted from {until} on, or after a look at which it is good, or for another champion."
    return _Refusal(why, {"trainings_without_recovery": trainings, "granted_from": str(until)})


def _good(look: Look, trigger: Trigger, granted: Request) -> bool:
    if trigger == "drift":
        return look.drifted is False
    limits = [test.allowed for test in (look.test,) if test] + [test.drop for test in (granted.test,) if test]
    return look.degraded is False and (look.test is None or look.test.drop <= min(limits) / 2)


def _over_budget(request: Request, granted: list[Request], policy: RetrainingSpec) -> _Refusal | None:
    """No 30 successive days may hold more granted requests than the budget, in whatever order the requests come."""
    budget, days = policy.budget_per_30_days, _trainings(granted)
    trainings = int(_fullest(days, request.seen))
    if trainings < budget:
        return None
    until = _free_from(days, request.seen, budget - 1)
    why = f"Budget: {trainings} trainings were granted in {BUDGET_DAYS} days of data, the policy allows {budget}. It"
    numbers: dict[str, float | str] = {"granted_in_30_days": trainings, "budget": budget, "granted_from": str(until)}
    return _Refusal(f"{why} would be granted from {until} on, or with a larger budget_per_30_days.", numbers)


def _too_expensive(request: Request, spent: Mapping[date, float], policy: RetrainingSpec) -> _Refusal | None:
    """No 30 successive days may hold trainings that cost more than the limit."""
    limit, price = policy.maximum_cost_per_30_days, policy.costs.training
    if limit is None or price is None:
        return None
    cost = _fullest(spent, request.seen)
    if cost + price <= limit:
        return None
    why = f"Budget: trainings for {cost:g} {policy.costs.unit}".rstrip()
    why += f" were granted in {BUDGET_DAYS} days of data, this one costs {price:g}, the policy allows {limit:g}."
    numbers: dict[str, float | str] = {"cost_in_30_days": cost, "price": price, "maximum_cost": limit}
    if price > limit:
        return _Refusal(f"{why} A larger maximum_cost_per_30_days would change it.", numbers)
    until = _free_from(spent, request.seen, limit - price)
    why += f" It would be granted from {until} on, or with a larger maximum_cost_per_30_days."
    return _Refusal(why, numbers | {"granted_from": str(until)})


def _group(trigger: Trigger) -> frozenset[Trigger]:
    return next((group for group in COOLDOWN_GROUPS if trigger in group), frozenset())


def _times_allowed(request: Request) -> float:
    """How many times the allowed drop the drop is at least; 0 where that says nothing."""
    test = request.test
    return test.lowest_drop / test.allowed if test is not None and test.allowed > 0 else 0.0


def _trainings(granted: list[Request]) -> dict[date, float]:
    """Day → requests granted on it, without those of people."""
    days: dict[date, float] = {}
    for each in granted:
        if each.trigger != "person":
            days[each.seen] = days.get(each.seen, 0) + 1
    return days


def _costs(granted: list[Request], history: History, policy: RetrainingSpec) -> dict[date, float]:
    """Day → the price of the trainings granted on it. One whose price was not kept costs what one costs now."""
    days: dict[date, float] = {}
    for each in granted:
        cost = history.decisions[each.id].cost
        days[each.seen] = days.get(each.seen, 0) + (policy.costs.training or 0.0 if cost is None else cost)
    return days


def _fullest(amounts: Mapping[date, float], day: date) -> float:
    """The most in any 30 successive days that hold `day`."""
    length = timedelta(days=BUDGET_DAYS)
    starts = [start for start in (*amounts, day) if start <= day < start + length]
    return max(sum(n for d, n in amounts.items() if start <= d < start + length) for start in starts)


def _free_from(amounts: Mapping[date, float], day: date, room: float) -> date:
    """The first day after `day` on which no 30 days that hold it have more than `room`."""
    after = sorted(d + timedelta(days=BUDGET_DAYS) for d in amounts if d + timedelta(days=BUDGET_DAYS) > day)
    return next(each for each in after if _fullest(amounts, each) <= room)
