"""The broker's policy, by example and by property."""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from itertools import combinations, pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.contract.base import Days
from training.contract.messages import ColumnDrift, Degradation, DriftResult, PerformanceResult
from training.contract.model_spec import ModelSpec, RetrainingSpec, Trigger
from training.contract.retraining_spec import CostsSpec
from training.domain.identity import request_id
from training.domain.monitoring import Look
from training.domain.retraining import Decision, History, Request, history_needed
from training.domain.retraining_decision import COOLDOWN_GROUPS, decide
from training.domain.retraining_policy import Advice, Evidence, advise

START = date(2026, 1, 5)
WINDOW = 7


def _request(trigger: Trigger, day: int, champion: int | None = 1) -> Request:
    seen = START + timedelta(days=day)
    return Request(
        id=request_id("m", trigger, seen, champion),
        trigger=trigger,
        seen=seen,
        as_of=seen,
        reason="because",
        champion_version=champion,
    )


def _history(*decided: tuple[Request, bool]) -> History:
    """A run has taken each granted request."""
    return History(
        requests={request.id: request for request, _ in decided},
        decisions={
            request.id: Decision(request_id=request.id, outcome="granted" if granted else "refused")
            for request, granted in decided
        },
        taken={request.id: "a run" for request, granted in decided if granted},
    )


def _replay(requests: list[Request], policy: RetrainingSpec) -> list[tuple[Request, bool]]:
    """Put the requests one after the other, as the ledger would; a repeated one finds its first decision."""
    decided: dict[str, tuple[Request, bool]] = {}
    for request in requests:
        if request.id not in decided:
            decision = decide(request, _history(*decided.values()), policy, WINDOW)
            decided[request.id] = (request, decision.outcome == "granted")
    return list(decided.values())


# --- by example ---


def test_the_first_reason_is_granted() -> None:
    assert decide(_request("drift", 0), _history(), RetrainingSpec(), WINDOW).outcome == "granted"


def test_the_same_request_is_not_granted_twice() -> None:
    request = _request("drift", 0)
    decision = decide(request, _history((request, True)), RetrainingSpec(cooldown_days=0), WINDOW)
    assert (decision.outcome, decision.why) == ("refused", "The same request was granted before.")


@pytest.mark.parametrize(("days", "expected"), [(1, "refused"), (6, "refused"), (7, "granted"), (-6, "refused")])
def test_drift_and_performance_share_a_cooldown_in_days_of_data(days: int, expected: str) -> None:
    history = _history((_request("drift", 20), True))
    decision = decide(_request("performance", 20 + days), history, RetrainingSpec(cooldown_days=7), WINDOW)
    assert decision.outcome == expected
    if expected == "refused":
        assert decision.why.startswith("Cooldown: drift-")


@pytest.mark.parametrize("trigger", ["schedule", "code", "person"])
def test_what_somebody_decided_neither_waits_for_a_cooldown_nor_starts_one(trigger: Trigger) -> None:
    drift, other = _request("drift", 10), _request(trigger, 11)
    assert decide(other, _history((drift, True)), RetrainingSpec(), WINDOW).outcome == "granted"
    assert decide(drift, _history((other, True)), RetrainingSpec(), WINDOW).outcome == "granted"


def test_a_refused_request_starts_no_cooldown() -> None:
    history = _history((_request("drift", 9), False))
    assert decide(_request("drift", 10), history, RetrainingSpec(), WINDOW).outcome == "granted"


@pytest.mark.parametrize(
    ("seen_before", "successive"),
    [
        ([], 1),
        ([29], 1),  # a day earlier: six of the seven days are the same
        (range(17, 30), 2),  # daily: the window of day 16 would be the third
        (range(16, 30), 3),
        ([23, 16], 3),  # weekly windows adjoin
        ([17, 11], 2),  # the windows of days 11 and 17 overlap
        ([17, 4], 3),  # six days between two windows
        ([16], 1),  # seven days: a whole window
        ([23, 16, 22, 9], 3),  # a look more never counts less
        ([23, 18, 9], 3),  # by way of day 18
        ([31, 37, 38], 1),  # later ones do not count
    ],
)
def test_drift_must_persist_over_successive_windows_that_do_not_overlap(
    seen_before: Iterable[int], successive: int
) -> None:
    history = _history(*((_request("drift", day), False) for day in seen_before))
    decision = decide(_request("drift", 30), history, RetrainingSpec(persistence=3), WINDOW)
    assert decision.outcome == ("granted" if successive == 3 else "refused")
    assert successive == 3 or decision.why.startswith(f"Drift was seen in {successive} of 3 successive windows")


def test_drift_from_another_champion_does_not_count_as_persistence() -> None:
    history, policy = _history((_request("drift", 3, champion=1), False)), RetrainingSpec(persistence=2)
    assert decide(_request("drift", 10, champion=1), history, policy, WINDOW).outcome == "granted"
    assert decide(_request("drift", 10, champion=2), history, policy, WINDOW).outcome == "refused"


def test_performance_needs_no_persistence() -> None:
    assert decide(_request("performance", 9), _history(), RetrainingSpec(persistence=3), WINDOW).outcome == "granted"


def test_the_budget_counts_thirty_days_of_data_and_leaves_people_out() -> None:
    policy = RetrainingSpec(budget_per_30_days=2)
    granted = [(_request("schedule", 0), True), (_request("schedule", 14), True), (_request("person", 15), True)]
    refused = decide(_request("schedule", 29), _history(*granted), policy, WINDOW)
    assert (refused.outcome, refused.why[:7]) == ("refused", "Budget:")
    assert decide(_request("schedule", 30), _history(*granted), policy, WINDOW).outcome == "granted"
    assert decide(_request("person", 29), _history(*granted), policy, WINDOW).outcome == "granted"


def test_history_knows_what_waits_oldest_first() -> None:
    first, second, third = (_request("schedule", day) for day in (3, 1, 2))
    bodies = [
        Decision(request_id=first.id, outcome="granted"),
        Decision(request_id=second.id, outcome="refused", why="no"),
        Decision(request_id=third.id, outcome="granted"),
        Decision(request_id=first.id, outcome="taken", run="run-1"),
    ]
    requests = [each.model_dump(mode="json") for each in (first, second, third)]
    history = History.of(requests, [body.model_dump(mode="json") for body in bodies])
    assert history.granted == {first.id, third.id}
    assert history.waiting == [third.id]
    assert history.taken == {first.id: "run-1"}


# --- hysteresis, strong signals, money, and requests that join ---


def _fall(day: int, lowest: float, champion: int = 1) -> Request:
    """A request for a drop that is at least `lowest`, where 0.1 is allowed."""
    test = Degradation(
        metric="rmse", drop=lowest + 0.1, standard_error=0.03, look=2, confidence=0.99, lowest_drop=lowest, allowed=0.1
    )
    return _request("performance", day, champion).model_copy(update={"test": test})


def _look(day: int, drop: float, champion: int = 1, drifted: bool = False) -> Look:
    test = Degradation(
        metric="rmse", drop=drop, standard_error=0.03, look=2, confidence=0.99, lowest_drop=drop - 0.1, allowed=0.1
    )
    seen = START + timedelta(days=day)
    return Look(as_of=seen, champion_version=champion, drifted=drifted, degraded=test.degraded, test=test)


def _decide(request: Request, *granted: Request, looks: Sequence[Look] = (), **policy: Any) -> Decision:
    history = dataclasses.replace(_history(*((each, True) for each in granted)), looks=looks)
    return decide(request, history, RetrainingSpec(**policy), WINDOW)


def test_after_each_training_that_has_not_helped_the_wait_doubles() -> None:
    granted = [_fall(0, 0.2), _fall(14, 0.2)]
    assert _decide(_fall(14, 0.2), _fall(0, 0.2), cooldown_days=14).outcome == "granted"
    refused = _decide(_fall(41, 0.2), *granted, cooldown_days=14)
    assert refused.outcome == "refused"
    assert refused.why.startswith("Not recovered: performance was granted 2 trainings and has not been good since.")
    assert f"granted from {START + timedelta(days=42)} on" in refused.why
    assert refused.numbers["granted_from"] == str(START + timedelta(days=42))
    assert _decide(_fall(42, 0.2), *granted, cooldown_days=14).outcome == "granted"
    third = [*granted, _fall(42, 0.2)]
    assert _decide(_fall(97, 0.2), *third, cooldown_days=14).outcome == "refused"
    assert _decide(_fall(98, 0.2), *third, cooldown_days=14).outcome == "granted"


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (_look(24, 0.05), "granted"),
        (_look(24, 0.07), "refused"),  # below the limit, but not good
        (_look(24, 0.3), "refused"),
        (_look(6, 0.0), "refused"),  # its window has days of the one that was granted
        (_look(31, 0.0), "refused"),  # later
        (_look(24, 0.0, champion=2), "refused"),
    ],
)
def test_a_state_that_was_good_again_or_another_champion_starts_anew(look: Look, expected: str) -> None:
    granted = [_fall(0, 0.2), _fall(15, 0.2)]
    assert _decide(_fall(30, 0.2), *granted, looks=[look], cooldown_days=14).outcome == expected
    assert _decide(_fall(30, 0.2, champion=2), *granted, cooldown_days=14).outcome == "granted"


def test_the_states_of_drift_and_performance_are_apart() -> None:
    granted = [_request("drift", 0), _request("drift", 15)]
    assert _decide(_request("drift", 30), *granted, cooldown_days=14).outcome == "refused"
    assert _decide(_fall(30, 0.2), *granted, cooldown_days=14).outcome == "granted"
    both = _fall(30, 0.2).model_copy(update={"also": ("drift",)})
    assert _decide(both, *granted, cooldown_days=14).outcome == "granted"
    good = _look(24, 0.5, drifted=False)
    assert _decide(_request("drift", 30), *granted, looks=[good], cooldown_days=14).outcome == "granted"


def test_drift_that_came_with_a_fall_of_performance_counts_as_drift() -> None:
    both = _fall(3, 0.2).model_copy(update={"also": ("drift",)})
    policy = RetrainingSpec(persistence=2)
    assert decide(_request("drift", 10), _history((both, False)), policy, WINDOW).outcome == "granted"


def test_a_much_stronger_signal_breaks_the_cooldown_once() -> None:
    drift = _request("drift", 10)
    weak = _decide(_fall(12, 0.29), drift)
    assert weak.outcome == "refused"
    assert f"It would be granted from {START + timedelta(days=17)} on, or with a drop of at least 0.3" in weak.why
    assert weak.numbers["breaks_cooldown_at"] == pytest.approx(0.3)
    strong = _fall(12, 0.31)
    assert _decide(strong, drift).outcome == "granted"
    assert _decide(_fall(13, 0.5), drift, strong).outcome == "refused"
    assert _decide(strong, drift, cooldown_broken_by=None).outcome == "refused"
    assert _decide(strong, drift, cooldown_broken_by=4.0).outcome == "refused"
    assert _decide(strong, drift, budget_per_30_days=1).why.startswith("Budget: 1 trainings")


def test_a_request_joins_a_granted_one_of_its_kind_that_waits() -> None:
    drift = _request("drift", 10)
    waiting = dataclasses.replace(_history((drift, True)), taken={})
    joined = decide(_fall(30, 0.2), waiting, RetrainingSpec(), WINDOW)
    assert (joined.outcome, joined.numbers) == ("joined", {"joins": drift.id})
    assert decide(_fall(12, 0.31), waiting, RetrainingSpec(), WINDOW).outcome == "joined"
    for trigger in ("new_data", "schedule", "person"):
        assert decide(_request(trigger, 30), waiting, RetrainingSpec(), WINDOW).outcome == "granted"


def test_trainings_cost_no_more_than_the_limit_in_thirty_days() -> None:
    policy = RetrainingSpec(costs=CostsSpec(training=40, unit="EUR"), maximum_cost_per_30_days=100)
    before = [(_request("schedule", 0), True), (_request("person", 10), True)]
    history = _history(*before)
    refused = decide(_request("schedule", 20), history, policy, WINDOW)
    assert refused.outcome == "refused"
    assert (
        "trainings for 80 EUR were granted in 30 days of data, this one costs 40, the policy allows 100" in refused.why
    )
    assert f"granted from {START + timedelta(days=30)} on" in refused.why
    assert decide(_request("schedule", 30), history, policy, WINDOW).outcome == "granted"
    person = decide(_request("person", 20), history, policy, WINDOW)
    assert (person.outcome, person.cost) == ("granted", 40)
    # What a training cost when it was granted counts.
    id_ = before[0][0].id
    cheaper = history.decisions | {id_: history.decisions[id_].model_copy(update={"cost": 10})}
    known = dataclasses.replace(history, decisions=cheaper)
    assert decide(_request("schedule", 20), known, policy, WINDOW).outcome == "granted"
    one_too_dear = RetrainingSpec(costs=CostsSpec(training=40), maximum_cost_per_30_days=30)
    assert "A larger maximum_cost" in decide(_request("schedule", 0), _history(), one_too_dear, WINDOW).why


def test_a_refusal_says_from_when_on_the_budget_has_room() -> None:
    granted = [_request("schedule", day) for day in (0, 5, 10)]
    refused = _decide(_request("schedule", 12), *granted, budget_per_30_days=3)
    assert f"granted from {START + timedelta(days=30)} on" in refused.why
    assert _decide(_request("schedule", 30), *granted, budget_per_30_days=3).outcome == "granted"


# --- the reason ---


def _drift(**fields) -> DriftResult:
    return DriftResult(**({"outcome": "measured", "as_of": START, "champion_version": 1} | fields))


def _advice(
    drift: DriftResult | None, performance: PerformanceResult | None, spec: ModelSpec, history_days: int = 1000
) -> Advice:
    return advise(Evidence(START, 1, drift, performance, history_days), _history(), spec)


def test_no_finding_is_no_reason(spec: ModelSpec) -> None:
    assert not _advice(_drift(), PerformanceResult(outcome="no predictions"), spec).asks
    assert not _advice(_drift(outcome="no data"), None, spec).asks
    assert not _advice(None, None, spec).asks


def test_degraded_performance_says_more_than_drift_and_both_are_one_request(spec: ModelSpec) -> None:
    worse = PerformanceResult(
        outcome="measured", degraded=True, current={"average_precision": 0.3}, reference={"average_precision": 0.6}
    )
    text = "average_precision 0.300 on matured labels, 0.600 on the holdout"
    advice = _advice(_drift(), worse, spec)
    assert (advice.triggers, advice.text) == (("performance",), text)
    advice = _advice(_drift(drifted=True, drifted_share=0.5), worse, spec)
    assert advice.triggers == ("performance", "drift")
    assert advice.text.startswith(f"{text}; 50% of the features drifted")


def test_the_reason_for_drift_names_the_columns_worst_first(spec: ModelSpec) -> None:
    columns = {
        name: ColumnDrift(score=score, threshold=0.1, method="wasserstein", drifted=score >= 0.1)
        for name, score in {"a": 0.2, "b": 0.05, "c": 0.9}.items()
    }
    days = Days.ending(START, 7)
    advice = _advice(_drift(drifted=True, drifted_share=2 / 3, columns=columns, window=days), None, spec, 0)
    assert advice.triggers == ("drift",)
    assert advice.text == f"67% of the features drifted in {days}: c, a"


def test_a_first_champion_waits_for_enough_history(spec: ModelSpec) -> None:
    needed = history_needed(spec)
    assert needed == 14 + 7 + 7 + 7
    missing = _drift(outcome="no champion", champion_version=None)
    early = _advice(missing, None, spec, needed - 1)
    assert not early.asks
    assert f"{needed - 1} days of labelled history; a first training needs {needed}" in early.text
    assert _advice(missing, None, spec, needed).triggers == ("first",)


# --- by property ---

triggers = st.sampled_from(get_args(Trigger))
policies = st.builds(
    RetrainingSpec,
    persistence=st.integers(1, 3),
    cooldown_days=st.integers(0, 14),
    budget_per_30_days=st.integers(1, 5),
)
requests = st.builds(_request, triggers, st.integers(0, 90), st.sampled_from([None, 1, 2]))
in_any_order = st.lists(requests, max_size=40)


@given(in_any_order, policies)
def test_never_two_of_a_kind_within_the_cooldown(put: list[Request], policy: RetrainingSpec) -> None:
    granted = [request for request, yes in _replay(put, policy) if yes]
    for group in COOLDOWN_GROUPS:
        days = sorted(request.seen for request in granted if request.trigger in group)
        assert all((later - earlier).days >= policy.cooldown_days for earlier, later in pairwise(days))


@given(in_any_order, policies)
def test_no_thirty_days_hold_more_than_the_budget(put: list[Request], policy: RetrainingSpec) -> None:
    days = [request.seen for request, yes in _replay(put, policy) if yes and request.trigger != "person"]
    for start in days:
        assert sum(start <= day < start + timedelta(days=30) for day in days) <= policy.budget_per_30_days


@given(in_any_order, policies, st.integers(1, 5))
def test_no_thirty_days_cost_more_than_the_limit(put: list[Request], policy: RetrainingSpec, limit: int) -> None:
    costs = {"costs": CostsSpec(training=1.0), "maximum_cost_per_30_days": float(limit)}
    decided = _replay(put, policy.model_copy(update=costs))
    days = [request.seen for request, yes in decided if yes and request.trigger != "person"]
    for start in days:
        assert sum(start <= day < start + timedelta(days=30) for day in days) <= limit


@given(in_any_order, policies)
def test_people_are_always_granted_and_nothing_twice(put: list[Request], policy: RetrainingSpec) -> None:
    decided = _replay(put + put, policy)
    assert all(yes for request, yes in decided if request.trigger == "person")
    again = _history(*decided)
    assert all(decide(request, again, policy, WINDOW).outcome == "refused" for request, yes in decided if yes)


@given(in_any_order, requests, policies, st.randoms())
def test_a_decision_depends_on_what_is_known_not_on_its_order(
    put: list[Request], request_: Request, policy: RetrainingSpec, random
) -> None:
    known = _replay(put, policy)
    shuffled = random.sample(known, len(known))
    assert decide(request_, _history(*known), policy, WINDOW) == decide(request_, _history(*shuffled), policy, WINDOW)


@given(in_any_order, policies)
def test_granted_drift_was_seen_in_as_many_successive_windows(put: list[Request], policy: RetrainingSpec) -> None:
    decided = _replay(put, policy)
    for position, (request, yes) in enumerate(decided):
        if not yes or request.trigger != "drift":
            continue
        same = [
            r for r, _ in decided[:position] if (r.trigger, r.champion_version) == ("drift", request.champion_version)
        ]
        days = {r.seen for r in same if r.seen < request.seen}
        rows = combinations(sorted(days), policy.persistence - 1)
        assert any(
            all(WINDOW <= (later - earlier).days < 2 * WINDOW for earlier, later in pairwise([*row, request.seen]))
            for row in rows
        )


@given(st.lists(st.tuples(triggers, st.integers(0, 90)), min_size=2, max_size=2, unique=True))
def test_other_triggers_or_days_are_other_requests(two: list[tuple[Trigger, int]]) -> None:
    assert len({_request(trigger, day).id for trigger, day in two}) == 2
