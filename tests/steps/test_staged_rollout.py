"""Staged rollouts: the plan's stages in order, guards that trip, kills, cancellations, silence.

The replicas are those of tests/steps/replica_server.py. Real services with bad models are in
tests/serving/test_rollouts.py.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from testing.waiting import eventually
from tests.cases import others_in_ci, others_long
from tests.steps.prediction_tables import prediction_table
from tests.steps.replica_server import MODEL, SOURCE, Replica
from tests.steps.rollout_helpers import Killed, after_rollouts, aliases, back, killing, ledger, roll, take_over
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry
from training.contract.errors import RolloutAborted, StepError, TransientError
from training.contract.messages import RolloutInputs
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.contract.signals import NO_TIMES, TIME_BUCKETS, PairSignals, VersionSignals
from training.contract.traffic import MODE, STAGE
from training.domain.audit import Audit
from training.settings import Settings
from training.steps import rollout

SHADOW = {"mode": "shadow", "requests": 100}
CANARY = {"mode": "canary", "weight": 10, "requests": 100}
PLAN = [SHADOW, CANARY, {"mode": "canary", "weight": 50, "requests": 100}, {"mode": "full"}]
Plan = Callable[..., Settings]


def times(count: int, seconds: float = 0.004) -> tuple[int, ...]:
    bucket = sum(end < seconds for end in TIME_BUCKETS)
    return tuple(count if i == bucket else 0 for i in range(len(NO_TIMES)))


def counts(rows: int, **changes: Any) -> VersionSignals:
    made = {"asked": rows, "rows": rows, "answered": rows, "scored": rows, "times": times(rows)}
    return VersionSignals(**{**made, "scoring_times": times(rows, 0.0002), **changes})


@pytest.fixture(scope="module")
def first(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return after_rollouts(tmp_path_factory.mktemp("first"), template, 1)


@pytest.fixture
def planned(first: Settings, quick: Settings, fleet: list[Replica], tmp_path: Path) -> Plan:
    """Settings with these stages, version 1 as champion, and replicas that have seen 60 requests each."""

    def make(stages: list[dict[str, Any]] = PLAN, guards: dict[str, Any] | None = None) -> Settings:
        spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
        spec["rollout"] = {"timeout_seconds": 3, "stages": stages, "guards": guards or {}}
        (tmp_path / "plans").mkdir(exist_ok=True)
        (tmp_path / "plans" / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
        return quick.model_copy(update={"models_dir": tmp_path / "plans"})

    take_over(first, quick)
    for replica in fleet:
        replica.versions = {1: counts(60), 2: counts(60)}
        replica.pair = pair_of(60, both=3)
    return make


def pair_of(rows: int, both: int, challenger: int = 0) -> PairSignals:
    """Signals of `rows`: alerts of both versions, and alerts of the challenger only."""
    return PairSignals(
        rows=rows,
        comparable=rows,
        agreed=rows - challenger,
        champion_decisions={"alert": both, "pass": rows - both},
        challenger_decisions={"alert": both + challenger, "pass": rows - both - challenger},
    )


def modes(replica: Replica) -> list[tuple[str, float]]:
    return [(state.mode, state.weight) for state in replica.history]


def test_the_stages_follow_each_other_on_every_replica_and_what_the_guards_found_is_kept(
    planned: Plan, registry: Registry, fleet: list[Replica]
) -> None:
    settings = planned()
    result = rollout.run(RolloutInputs(model=MODEL, version=2), settings)
    assert (result.version, result.previous_version) == (2, 1)
    assert [(stage.stage, stage.requests) for stage in result.stages] == [
        ("2.1-shadow", 120), ("2.2-canary-10", 120), ("2.3-canary-50", 120)
    ]  # fmt: skip
    for replica in fleet:
        asked = [("full", 0), ("shadow", 0), ("canary", 10), ("canary", 50), ("full", 0)]
        assert [mode for mode in modes(replica) if mode in asked] == asked
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert registry.state(MODEL).tags == {}
    assert "kept: error rate 0.00% (0 of 120 requests)" in result.stages[0].findings[0]
    [page] = Path(settings.work).glob("*/rollouts/2/rollout.md")
    assert "## Stage 2.3-canary-50: passed" in page.read_text()
    stages = [entry.body["phase"] for entry in Ledger(settings.ledger).entries(MODEL, "stage")]
    assert stages == ["begun", "passed"] * 3


def test_the_first_champion_goes_straight_to_full(planned: Plan, registry: Registry) -> None:
    for alias in ("champion", "previous"):
        registry.remove_alias(MODEL, alias)
    assert rollout.run(RolloutInputs(model=MODEL, version=2), planned()).stages == []
    assert aliases(registry) == {"champion": 2}


@pytest.mark.parametrize(
    ("guard", "stage", "seen", "pair", "said"),
    others_in_ci(
        [
            ("error_rate", SHADOW, {"errors": 6}, {}, "error rate 10.00% (12 of 120 requests), at most 1.00%"),
            ("nan_share", SHADOW, {"nans": 1}, {}, "share of NaN 1.67% (2 of 120 scores), at most 0.00%"),
            ("p99", SHADOW, {"scoring_times": times(60, 0.5)}, {}, "p99 of scoring"),
            ("p99", CANARY, {"times": times(60, 0.06)}, {}, "for the champion's"),
            ("alert_rate", CANARY, {}, {"challenger": 20}, "alert rate 38.33% (46 of 120 requests that both"),
            ("agreement", SHADOW, {}, {"challenger": 30}, "agreement 50.00%"),
        ],
        every=3,
    ),
)
def test_a_guard_that_trips_rolls_back_and_shows_the_numbers(
    planned: Plan,
    registry: Registry,
    fleet: list[Replica],
    guard: str,
    stage: dict[str, Any],
    seen: dict[str, Any],
    pair: dict[str, int],
    said: str,
) -> None:
    for replica in fleet:
        replica.versions[2] = counts(60, **seen)
        replica.pair = pair_of(60, both=3, **pair)
    settings = planned([stage, {"mode": "full"}])
    with pytest.raises(RolloutAborted) as failed:
        roll(settings, 2)
    assert not failed.value.retryable
    assert guard in failed.value.message.partition(" tripped")[0]
    assert said in failed.value.message
    assert aliases(registry) == {"champion": 1}
    assert registry.state(MODEL).tags == {}
    assert modes(fleet[0])[-1] in (("full", 0), (stage["mode"], stage.get("weight", 0)))
    assert said in registry._client.get_model_version(MODEL, "2").tags["rollout"]
    entries = Ledger(settings.ledger).entries(MODEL)
    assert [(e.kind, e.body["phase"]) for e in entries[-2:]] == [("stage", "tripped"), ("rollout", "failed")]
    assert any(said in finding for finding in entries[-2].body["findings"])
    assert said in entries[-1].body["failure"]


def test_one_failure_among_hundreds_is_chance(planned: Plan, fleet: list[Replica]) -> None:
    fleet[0].versions[2] = counts(200, errors=1)
    assert roll(planned([SHADOW, {"mode": "full"}]), 2) == (2, 1)


def test_a_replica_that_lags_takes_the_stage_back(planned: Plan, registry: Registry, fleet: list[Replica]) -> None:
    settings = planned()
    stuck = fleet[1].signals()
    fleet[1].signals = lambda: stuck  # type: ignore[method-assign]
    with pytest.raises(TransientError, match=rf"is in stage 2.1-shadow: {fleet[1].url}"):
        roll(settings, 2)
    assert registry.state(MODEL).tags == {}
    assert aliases(registry)["champion"] == 1


def test_requests_are_summed_over_replicas_and_waited_for(planned: Plan, fleet: list[Replica]) -> None:
    for replica in fleet:
        replica.versions = {}
    settings = planned([SHADOW, {"mode": "full"}])

    def traffic() -> None:
        for seen in (40, 50):
            time.sleep(0.7)
            for replica in fleet:
                replica.versions = {1: counts(seen), 2: counts(seen)}
                replica.pair = PairSignals(rows=seen)

    threading.Thread(target=traffic, daemon=True).start()
    [stage] = rollout.run(RolloutInputs(model=MODEL, version=2), settings).stages
    assert stage.requests == 100


@pytest.mark.parametrize(
    ("policy", "error", "tags"),
    others_in_ci([("promote", None, False), ("hold", TransientError, True), ("fail", RolloutAborted, False)], first=2),
)
def test_silence_ends_a_stage_as_the_plan_says(
    planned: Plan, registry: Registry, fleet: list[Replica], policy: str, error: type[StepError] | None, tags: bool
) -> None:
    stage = {**CANARY, "requests": 1000, "maximum_minutes": 0.02, "on_silence": policy}
    settings = planned([stage, {"mode": "full"}])
    if error is None:
        assert roll(settings, 2) == (2, 1)
    else:
        with pytest.raises(error, match=r"only 120 of 1000 requests in 0\.02 minutes"):
            roll(settings, 2)
    assert (STAGE in registry.state(MODEL).tags) == tags
    if policy == "hold":
        # The stage went on; with enough requests the step that runs again goes on too.
        for replica in fleet:
            replica.versions = {1: counts(600), 2: counts(600)}
        assert roll(settings, 2) == (2, 1)


FAILING = [
    (VersionSignals(asked=1, errors=1), "error rate 100.00% (1 of 1 requests)"),
    (counts(60, errors=1), "error rate 1.67% (1 of 60 requests)"),
    (counts(60, nans=1), "share of NaN 1.67% (1 of 60 scores)"),
]


@pytest.mark.parametrize(
    "mode", others_long([CANARY, SHADOW, {"mode": "ab", "weight": 50, "experiment": "x", "requests": 100}])
)
@pytest.mark.parametrize(("seen", "said"), others_long(FAILING))
def test_silence_does_not_promote_a_version_that_fails(
    planned: Plan,
    registry: Registry,
    fleet: list[Replica],
    mode: dict[str, Any],
    seen: VersionSignals,
    said: str,
) -> None:
    fleet[0].versions[2], fleet[1].versions[2] = seen, VersionSignals()
    stage = {**mode, "requests": 1000, "maximum_minutes": 0.02, "on_silence": "promote"}
    with pytest.raises(RolloutAborted, match=re.escape(said)):
        roll(planned([stage, {"mode": "full"}], {"maximum_nan_share": 0.01}), 2)
    assert aliases(registry) == {"champion": 1}


@pytest.mark.ci
def test_a_stage_of_minutes_does_not_pass_a_version_that_failed_its_only_request(
    planned: Plan, registry: Registry, fleet: list[Replica]
) -> None:
    for replica in fleet:
        replica.versions[2] = VersionSignals()
    fleet[0].versions[2] = VersionSignals(asked=1, errors=1)
    with pytest.raises(RolloutAborted, match=re.escape("error rate 100.00% (1 of 1 requests)")):
        roll(planned([{"mode": "shadow", "minutes": 0.02}, {"mode": "full"}]), 2)
    assert aliases(registry) == {"champion": 1}


@pytest.mark.ci
def test_a_version_that_fails_is_held_where_the_plan_holds(
    planned: Plan, registry: Registry, fleet: list[Replica]
) -> None:
    for replica in fleet:
        replica.versions[2] = counts(60)
    fleet[0].versions[2] = counts(60, asked=61, errors=1)
    stage = {**CANARY, "requests": 1000, "maximum_minutes": 0.02, "on_silence": "hold"}
    with pytest.raises(TransientError, match="is held: only 120 of 1000 requests"):
        roll(planned([stage, {"mode": "full"}]), 2)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("owner", "method", "use"),
    others_long(
        [
            *((Ledger, "append", use) for use in (1, 2, 3, 4, 5, 6)),
            *((Registry, "set_traffic", use) for use in (1, 2, 3, 4)),
            *((Registry, "set_alias", use) for use in (1, 2, 3, 4)),
        ],
        every=4,
    ),
)
def test_killed_anywhere_a_rerun_takes_up_the_stage(
    planned: Plan, registry: Registry, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, use: int
) -> None:
    settings = planned([SHADOW, CANARY, {"mode": "full"}])
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, killing(getattr(owner, method), use))
        with pytest.raises(Killed):
            roll(settings, 2)
    assert roll(settings, 2) == (2, 1)
    assert roll(settings, 2) == (2, 1)
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert registry.state(MODEL).tags == {}
    keys = [entry.key for entry in Ledger(settings.ledger).entries(MODEL) if entry.kind in ("rollout", "stage")]
    assert keys[2:] == ["2:started", "2.1-shadow:begun", "2.1-shadow:passed", "2.2-canary-10:begun",
                        "2.2-canary-10:passed", "2:finished"]  # fmt: skip


def test_a_stage_that_began_before_the_clock_was_set_back_still_ends(
    planned: Plan, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = planned([{"mode": "shadow", "minutes": 0.02}, {"mode": "full"}])
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "set_traffic", killing(Registry.set_traffic, 1))
        with pytest.raises(Killed):
            roll(settings, 2)

    class AnHourBack(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr(rollout.stages, "datetime", AnHourBack)
    thread, errors = rolling(settings, 2)
    thread.join(60)
    assert not thread.is_alive()
    assert (errors, aliases(registry)) == ([], {"champion": 2, "previous": 1})


def test_a_retry_under_another_plan_goes_on_from_its_stage(
    planned: Plan, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = planned([SHADOW, CANARY, {"mode": "full"}])
    # Killed when it sets the traffic of the second stage.
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "set_traffic", killing(Registry.set_traffic, 2))
        with pytest.raises(Killed):
            roll(settings, 2)
    more = {"mode": "canary", "weight": 50, "requests": 100}
    assert roll(planned([SHADOW, CANARY, more, {"mode": "full"}]), 2) == (2, 1)
    passed = [entry.key for entry in Ledger(settings.ledger).entries(MODEL, "stage") if entry.body["phase"] == "passed"]
    assert passed == ["2.1-shadow:passed", "2.2-canary-10:passed", "2.3-canary-50:passed"]
    assert aliases(registry) == {"champion": 2, "previous": 1}


def rolling(settings: Settings, version: int) -> tuple[threading.Thread, list[BaseException]]:
    """A rollout under way, and the error that it ends with."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            roll(settings, version)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


@pytest.mark.parametrize("named", others_in_ci([None, 3]))
def test_a_rollback_cancels_a_rollout(planned: Plan, registry: Registry, named: int | None) -> None:
    settings = planned([{**CANARY, "requests": 10_000}, {"mode": "full"}])
    thread, errors = rolling(settings, 2)
    eventually(lambda: registry.state(MODEL).tags.get(MODE) == "canary")
    assert back(settings, named, reason="complaints", run="r1")[0] == (named or 1)
    thread.join(300)
    assert registry.state(MODEL).tags == {}
    assert aliases(registry)["champion"] == (named or 1)
    assert "challenger" not in aliases(registry)
    [error] = errors
    assert isinstance(error, RolloutAborted)
    assert "cancelled by a rollback" in error.message
    assert "complaints" in error.message
    found = ledger(settings)
    assert ("rollout", "failed", 2) in found
    assert found[-1] == ("rollback", "finished", named or 1)
    # The same request again changes nothing, and the next rollout is a new one.
    assert back(settings, named, reason="complaints", run="r1")[0] == (named or 1)
    assert ledger(settings) == found


def test_a_rollback_cancels_a_rollout_that_waits_for_its_replicas(
    planned: Plan, registry: Registry, fleet: list[Replica]
) -> None:
    stuck = fleet[1].signals()
    fleet[1].signals = lambda: stuck  # type: ignore[method-assign]
    settings = planned()
    thread, errors = rolling(settings, 2)
    eventually(lambda: registry.state(MODEL).tags.get(MODE) == "shadow")
    assert back(settings)[0] == 1
    thread.join(300)
    [error] = errors
    assert isinstance(error, RolloutAborted)
    assert "cancelled by a rollback" in error.message
    assert aliases(registry) == {"champion": 1}


def test_a_registry_changed_by_hand_ends_the_rollout_and_stays(planned: Plan, registry: Registry) -> None:
    settings = planned([{**CANARY, "requests": 10_000}, {"mode": "full"}])
    thread, errors = rolling(settings, 2)
    eventually(lambda: registry.state(MODEL).tags.get(MODE) == "canary")
    registry.set_alias(MODEL, "champion", 4)
    thread.join(300)
    assert "The registry was changed during stage" in str(errors[0])
    assert aliases(registry) == {"champion": 4}
    assert registry.state(MODEL).tags == {}


def test_the_full_stage_is_watched_too(planned: Plan, registry: Registry, fleet: list[Replica]) -> None:
    settings = planned([{"mode": "full", "minutes": 0.02}])
    assert roll(settings, 2) == (2, 1)
    for replica in fleet:
        replica.versions[3] = counts(60, errors=30)
    with pytest.raises(RolloutAborted, match="error rate"):
        roll(settings, 3)
    assert aliases(registry) == {"champion": 2, "previous": 1}


@pytest.mark.ci
def test_an_ab_stage_ends_in_a_comparison(planned: Plan, fleet: list[Replica]) -> None:
    fleet[0].versions = {1: counts(900, decisions={"alert": 90}), 2: counts(900, decisions={"alert": 20})}
    plan = [{"mode": "ab", "weight": 50, "experiment": "fewer-alerts", "requests": 100}, {"mode": "full"}]
    settings = planned(plan)
    [stage] = rollout.run(RolloutInputs(model=MODEL, version=2), settings).stages
    rates, quality = stage.comparison
    assert "alert rate: champion 0.0938 (960 requests), challenger 0.0208 (960)" in rates
    assert "beyond chance" in rates
    assert "too few labels" in quality
    assert ("ab", 50) in modes(fleet[1])
    [kept] = Path(settings.work).glob("*/rollouts/2/rollout.json")
    assert json.loads(kept.read_text())["stages"][0]["comparison"] == stage.comparison


@pytest.mark.parametrize(
    ("audits", "said"),
    others_in_ci([([(3, 0.5)], "50.00%"), ([], "no audit is in the ledger"), ([(2, 0.5), (3, 0.0)], None)]),
)
def test_a_rollout_may_require_the_skew_audit(
    planned: Plan, registry: Registry, audits: list[tuple[int, float]], said: str | None
) -> None:
    settings = planned(guards={"maximum_skew": 0.01})
    for day, share in audits:
        as_of = datetime(2026, 1, day, tzinfo=UTC).date()
        audit = Audit(as_of=as_of, rows=10, values=100, mismatches=int(100 * share), features={"amount": share})
        Ledger(settings.ledger).append("audit", MODEL, audit.model_dump(mode="json"), str(as_of))
    if said is None:
        assert roll(settings, 2) == (2, 1)
    else:
        with pytest.raises(RolloutAborted, match=said):
            roll(settings, 2)
        assert aliases(registry) == {"champion": 1}


# --- late labels ---


def log_predictions(settings: Settings, worse: int | None, positives: int = 40, ab: bool = False) -> None:
    """400 requests with their labels, scored by both versions; `worse` scores at random. In an A/B test by one each."""
    chance, lake = np.random.default_rng(0), Lake(settings.lake, SOURCE, MODEL)
    later = datetime.now(UTC) + timedelta(hours=1)  # than any stage of this test begins
    ids = np.arange(400)
    frauds = (ids < positives).astype(int)
    events = {"transaction_id": ids, "event_time": [later] * 400, "customer_id": ids // 2, "terminal_id": ids}
    good = 0.8 * frauds + 0.1 * chance.random(400)
    versions = []
    for version in (1, 2):
        rows = pd.DataFrame({**events, "amount": 1.0}).assign(
            prediction_id=[f"{version}-{i}" for i in ids],
            score=chance.random(400) if version == worse else good,
            model_version=version,
            role="challenger" if ab and version == 2 else "shadow" if version == 2 else "champion",
        )
        versions.append(rows[ids % 2 == version - 1] if ab else rows)
    lake.overwrite("predictions", prediction_table(load_model_spec(MODEL), pd.concat(versions)), ["day"])
    labels = pa.table({"transaction_id": ids, "is_fraud": frauds, "reported_at": [later] * 400})
    labels = labels.append_column("partition", pa.array(["a"] * 400))
    lake.replace("labels", _microseconds(labels), "true", ["partition"])


def _microseconds(table: pa.Table) -> pa.Table:
    fields = [pa.field(f.name, pa.timestamp("us", "UTC")) if pa.types.is_timestamp(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


@pytest.mark.parametrize(("worse", "trips"), others_in_ci([(2, True), (1, False), (None, False)]))
def test_a_worse_model_is_rolled_back_once_labels_show_it(
    planned: Plan, registry: Registry, worse: int | None, trips: bool
) -> None:
    settings = planned([SHADOW, {"mode": "full"}], {"maximum_quality_drop": 0.05})
    log_predictions(settings, worse)
    if trips:
        with pytest.raises(RolloutAborted, match="Guard quality tripped") as failed:
            roll(settings, 2)
        assert "on 400 labelled requests, 360 negative, 40 positive" in failed.value.message
        assert aliases(registry) == {"champion": 1}
    else:
        assert roll(settings, 2) == (2, 1)


@pytest.mark.ci
def test_few_labels_and_none_decide_nothing(planned: Plan) -> None:
    settings = planned([SHADOW, {"mode": "full"}], {"maximum_quality_drop": 0.05})
    log_predictions(settings, worse=2, positives=5)
    [stage] = rollout.run(RolloutInputs(model=MODEL, version=2), settings).stages
    assert not any("labelled" in finding for finding in stage.findings)


def test_an_ab_stage_compares_quality_when_labels_are_in(planned: Plan, fleet: list[Replica]) -> None:
    fleet[0].versions = {1: counts(900, decisions={"alert": 90}), 2: counts(900, decisions={"alert": 20})}
    plan = [{"mode": "ab", "weight": 50, "experiment": "x", "requests": 100}, {"mode": "full"}]
    settings = planned(plan)
    log_predictions(settings, worse=2, positives=100, ab=True)
    [stage] = rollout.run(RolloutInputs(model=MODEL, version=2), settings).stages
    rates, quality = stage.comparison
    assert rates.startswith("alert rate: champion ")
    assert quality.startswith("average_precision: champion 1.0000 (200 requests), challenger 0.")
    assert "beyond chance" in quality
