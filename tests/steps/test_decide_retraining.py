"""What becomes a request, which requests are granted, which run takes one, and what a retry finds."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from tests.steps.monitored_model import land
from training.adapters.lake import Lake
from training.adapters.ledger import Entry, Ledger
from training.contract.base import Days
from training.contract.errors import DataContractError, InputError
from training.contract.messages import (
    ColumnDrift,
    DecideRetrainingInputs,
    DecideRetrainingResult,
    DriftResult,
    FeaturesInputs,
    PerformanceResult,
    Snapshot,
)
from training.contract.model_spec import MODELS_DIR
from training.domain.retraining import MAXIMUM_RUNS
from training.settings import Settings
from training.steps import features
from training.steps.decide_retraining import run

SOURCE, MODEL = "card_payments", "card_fraud"
START = date(2026, 1, 5)
TODAY = START + timedelta(days=35)


@pytest.fixture
def settings(tmp_path: Path, mlflow_database: Path) -> Settings:
    """A lake with events and labels of the 35 days before TODAY, one of each a day; the broker's default policy."""
    spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    models = tmp_path / "models"
    models.mkdir()
    (models / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec | {"retraining": {}}, sort_keys=False))
    shutil.copy(mlflow_database, tmp_path)
    made = Settings(home=tmp_path / "home", models_dir=models, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    _land(made, "events", START, TODAY)
    _land(made, "labels", START, TODAY)
    return made


def _land(settings: Settings, feed: str, start: date, end: date) -> None:
    noons = [datetime(day.year, day.month, day.day, 12, tzinfo=UTC) for day in _days(start, end)]
    column = {"events": "event_time", "labels": "reported_at"}[feed]
    times = pa.array(noons, pa.timestamp("us", tz="UTC"))
    table = pa.table({column: times, "partition": ["all"] * len(times)})
    Lake(settings.lake, SOURCE, MODEL).replace(feed, table, "true", ["partition"])


def _days(start: date, end: date) -> list[date]:
    return [start + timedelta(days=i) for i in range((end - start).days)]


def _drifted(as_of: date, champion: int = 1) -> DriftResult:
    return DriftResult(
        outcome="measured",
        as_of=as_of,
        window=Days.ending(as_of, 7),
        champion_version=champion,
        drifted=True,
        drifted_share=0.5,
        columns={"amount": ColumnDrift(score=0.4, threshold=0.1, method="wasserstein", drifted=True)},
        report_html="/reports/report.html",
    )


def _ask(settings: Settings, **fields) -> DecideRetrainingResult:
    """The step's result. The tables of a drift result are those that there are now, as if drift had run just before."""
    if (found := fields.get("drift")) and not found.table_versions:
        versions = Lake(settings.lake, SOURCE, MODEL).versions(
            "events", "labels", "customer_features", "terminal_features"
        )
        snapshot = found.snapshot.model_copy(update={"table_versions": versions})
        fields["drift"] = found.model_copy(update={"snapshot": snapshot})
    return run(DecideRetrainingInputs(model=MODEL, **fields), settings)


def _entries(settings: Settings, kind: str | None = None) -> list[Entry]:
    """Of this kind, or all that are about requests."""
    ledger = Ledger(settings.ledger)
    assert ledger.problems(MODEL) == []
    return [entry for entry in ledger.entries(MODEL, kind) if kind or entry.kind != "monitoring_run"]


# --- what is a reason ---


def test_nothing_found_is_no_request(settings: Settings) -> None:
    quiet = DriftResult(outcome="measured", as_of=TODAY, champion_version=1)
    result = _ask(settings, drift=quiet, performance=PerformanceResult(outcome="no predictions"))
    assert (result.request_id, result.granted, result.trigger) == (None, False, None)
    assert result.why.startswith("No reason to train: ")
    assert "0% of the features drifted, one drifted column would be a reason" in result.why
    assert _entries(settings) == []


def test_drift_becomes_a_request_with_its_evidence(settings: Settings) -> None:
    result = _ask(settings, drift=_drifted(TODAY), performance=PerformanceResult(outcome="too few labels"))
    assert (result.granted, result.trigger, result.as_of) == (True, "drift", TODAY)
    assert result.reason.startswith("50% of the features drifted in 2026-02-02")
    assert result.waiting == [result.request_id]
    request, decision = _entries(settings)
    assert (request.kind, request.key, decision.kind) == ("request", result.request_id, "decision")
    assert request.body["evidence"]["drift"]["report_html"] == "/reports/report.html"
    assert request.body["evidence"]["performance"]["outcome"] == "too few labels"
    assert decision.body["outcome"] == "granted"


def test_the_day_of_a_change_goes_from_monitoring_through_the_ledger_to_the_run_that_trains(settings: Settings) -> None:
    changed = TODAY - timedelta(days=14)
    found = PerformanceResult(outcome="measured", degraded=True, change=changed)
    quiet = DriftResult(outcome="measured", as_of=TODAY, champion_version=1)
    asked = _ask(settings, drift=quiet, performance=found)
    assert (asked.granted, asked.trigger, asked.change) == (True, "performance", changed)
    assert _entries(settings, "request")[0].body["change"] == str(changed)
    taken = _ask(settings, request_id=asked.request_id, run="a-run")
    assert (taken.granted, taken.change) == (True, changed)


def test_a_change_waits_until_a_training_can_learn_from_it(settings: Settings) -> None:
    """Four days to train on, a holdout of three and the label delay: then a training is worth its cooldown."""

    def ask(as_of: date) -> DecideRetrainingResult:
        found = PerformanceResult(outcome="measured", degraded=True, change=TODAY - timedelta(days=14))
        quiet = DriftResult(outcome="measured", as_of=as_of, champion_version=1)
        return _ask(settings, drift=quiet, performance=found)

    too_soon = ask(TODAY - timedelta(days=1))
    assert not too_soon.granted
    change = TODAY - timedelta(days=14)
    assert too_soon.why.startswith(f"Too soon: enough days since the change on {change} will have labels as of {TODAY}")
    assert ask(TODAY).granted
    asks = {"trigger": "person", "reason": "I know better", "change": TODAY, "run": "a-run"}
    assert _ask(settings, **asks).granted


def test_the_ledger_keeps_who_asked_and_only_some_may_force(settings: Settings) -> None:
    asks = {"trigger": "person", "reason": "audit", "run": "a-run"}
    allowed = settings.model_copy(update={"releasers": "ada"})
    with pytest.raises(InputError, match="bob may not force a training"):
        _ask(allowed, **asks, force=True, requested_by="bob")
    assert _entries(allowed) == []
    assert _ask(allowed, **asks, requested_by="bob").granted
    assert _ask(allowed, **asks | {"run": "another"}, force=True, requested_by="ada").granted
    requests = _entries(allowed, "request")
    assert [(each.body["requested_by"], each.body["force"]) for each in requests] == [("bob", False), ("ada", True)]


#: Days of events and labels that a first training of `history` needs: 9 + 5, and twice the delay of 7.
NEEDED = 28


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Settings:
    """Events and labels of the days needed, and no champion."""
    made = _settings(tmp_path_factory.mktemp("landed"), mlflow_database, minimum_class_rows=5)
    land(made, Days(start=START, end=START + timedelta(days=NEEDED)), customers=250)
    return made


@pytest.fixture(scope="module")
def computed(landed: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """They have become features."""
    made = _copied(landed, tmp_path_factory.mktemp("computed"))
    _compute(made)
    return made


@pytest.fixture
def history(computed: Settings, tmp_path: Path) -> Settings:
    return _copied(computed, tmp_path)


def _copied(made: Settings, folder: Path) -> Settings:
    """With its spec and its registry, which are in the same folder."""
    shutil.copytree(made.models_dir, folder, dirs_exist_ok=True)
    return Settings(home=folder / "home", models_dir=folder, tracking_uri=f"sqlite:///{folder}/mlflow.db")


def _settings(folder: Path, database: Path, **training) -> Settings:
    shutil.copy(database, folder)
    made = Settings(home=folder / "home", models_dir=folder, tracking_uri=f"sqlite:///{folder}/mlflow.db")
    _train(made, **training)
    return made


def _train(settings: Settings, **training) -> None:
    """Write the spec, with these fields of `training`."""
    spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    spec["training"] |= {"window_days": 9, "holdout_days": 5, **training}
    (settings.models_dir / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))


def _compute(settings: Settings) -> None:
    days = Days(start=START, end=START + timedelta(days=NEEDED + 1))
    versions = Lake(settings.lake, SOURCE, MODEL).versions("events", "labels")
    features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=versions), settings)


def _without_champion(settings: Settings) -> DecideRetrainingResult:
    return _ask(settings, drift=DriftResult(outcome="no champion", as_of=START + timedelta(days=NEEDED)))


@pytest.mark.ci
def test_a_first_champion_waits_until_the_labels_have_become_features(history: Settings) -> None:
    land(history, Days(start=START, end=START + timedelta(days=NEEDED)), customers=250)
    early = _without_champion(history)
    assert (early.granted, early.waiting, _entries(history)) == (False, [], [])
    assert "have not become features" in early.why
    _compute(history)
    assert _without_champion(history).granted


def test_a_first_champion_is_asked_for_when_the_labelled_history_suffices(history: Settings) -> None:
    _train(history, minimum_class_rows=5, window_days=10)
    assert _without_champion(history).why.startswith("No reason to train: no champion yet")
    _train(history, minimum_class_rows=5)
    result = _without_champion(history)
    assert (result.granted, result.trigger) == (True, "first")
    assert result.as_of == START + timedelta(days=NEEDED)


def test_a_first_champion_waits_for_rows_that_a_dataset_can_be_made_of(history: Settings) -> None:
    _train(history, minimum_class_rows=100_000)
    early = _without_champion(history)
    assert (early.granted, early.request_id, early.waiting, _entries(history)) == (False, None, [], [])
    assert early.why.startswith("No training yet: The training window 2026-01-")
    assert "100000" in early.why
    _train(history, minimum_class_rows=5)
    assert _without_champion(history).granted


def test_a_first_champion_waits_for_the_labels_of_all_days(history: Settings) -> None:
    lake = Lake(history.lake, SOURCE, MODEL)
    lacking = START + timedelta(days=12)
    rows = lake.scan("labels").to_table()
    reported = rows["reported_at"].cast(pa.date32())
    lake.replace("labels", rows.filter(pc.not_equal(reported, pa.scalar(lacking))), "true", ["partition"])
    _compute(history)
    early = _without_champion(history)
    assert (early.granted, early.request_id) == (False, None)
    assert "had a label reported before" in early.why


def test_features_that_were_never_computed_are_waited_for(landed: Settings, tmp_path: Path) -> None:
    early = _without_champion(_copied(landed, tmp_path))
    assert (early.granted, early.request_id) == (False, None)
    assert "has no tables ['customer_features', 'terminal_features']" in early.why


def test_without_labels_nothing_is_asked_for(tmp_path: Path, mlflow_database: Path) -> None:
    shutil.copy(mlflow_database, tmp_path)
    empty = Settings(home=tmp_path, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    _land(empty, "events", START, TODAY)
    result = _ask(empty, trigger="schedule", run="run-1")
    assert (result.granted, result.request_id) == (False, None)
    assert "no labelled events" in result.why


def test_training_looks_no_further_than_the_labels(settings: Settings) -> None:
    _land(settings, "labels", START, TODAY - timedelta(days=3))
    assert _ask(settings, drift=_drifted(TODAY)).as_of == TODAY - timedelta(days=3)
    assert _ask(settings, trigger="schedule", run="run-1").as_of == TODAY - timedelta(days=3)


def test_an_as_of_that_is_given_is_kept(settings: Settings) -> None:
    day = TODAY - timedelta(days=10)
    result = _ask(settings, trigger="person", as_of=day, reason="a look back", run="manual-1")
    assert (result.as_of, result.reason, result.granted) == (day, "a look back", True)


# --- the same inputs again ---


def test_the_same_drift_is_one_request_however_often_it_is_found(settings: Settings) -> None:
    first = _ask(settings, drift=_drifted(TODAY))
    assert _ask(settings, drift=_drifted(TODAY)) == first
    assert len(_entries(settings, "request")) == len(_entries(settings, "decision")) == 1


def test_drift_of_the_next_day_waits_for_the_cooldown(settings: Settings) -> None:
    first = _ask(settings, drift=_drifted(TODAY))
    refused = _ask(settings, drift=_drifted(TODAY + timedelta(days=1)))
    assert not refused.granted
    assert refused.why.startswith(f"Cooldown: {first.request_id} was granted on {TODAY}")
    assert refused.waiting == [first.request_id]
    _ask(settings, request_id=first.request_id, run="train-1")
    assert _ask(settings, drift=_drifted(TODAY + timedelta(days=7))).granted


def test_drift_joins_a_granted_request_that_no_run_has_taken(settings: Settings) -> None:
    first = _ask(settings, drift=_drifted(TODAY))
    joined = _ask(settings, drift=_drifted(TODAY + timedelta(days=7)))
    assert (joined.granted, joined.waiting) == (False, [first.request_id])
    assert joined.why == f"Joins {first.request_id}, which was granted on {TODAY} and which no run has taken yet."
    assert not _ask(settings, request_id=joined.request_id, run="train-1").granted
    _ask(settings, request_id=first.request_id, run="train-1")
    assert _ask(settings, drift=_drifted(TODAY + timedelta(days=8))).granted


def test_a_retry_finds_its_request_though_more_labels_came_in_between(settings: Settings) -> None:
    first = _ask(settings, trigger="schedule", run="scheduled-1")
    _land(settings, "labels", START, TODAY + timedelta(days=5))
    assert _ask(settings, trigger="schedule", run="scheduled-1") == first
    assert first.as_of == TODAY
    assert _ask(settings, trigger="schedule", run="scheduled-2").request_id != first.request_id


def test_two_people_are_both_heard(settings: Settings) -> None:
    results = [_ask(settings, trigger="person", reason="try again", run=f"manual-{i}") for i in range(2)]
    assert [result.granted for result in results] == [True, True]
    assert len({result.request_id for result in results}) == 2


def test_killed_between_request_and_decision_it_is_decided_when_run_again(settings: Settings, monkeypatch) -> None:
    append = Ledger.append

    def killed(self: Ledger, kind: str, *arguments, **named) -> Entry:
        if kind == "decision":
            raise KeyboardInterrupt
        return append(self, kind, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            _ask(settings, drift=_drifted(TODAY))
    (request,) = _entries(settings)
    undecided = _ask(settings, request_id=request.key, run="run-1")
    assert (undecided.granted, undecided.waiting) == (False, [])
    assert _ask(settings, drift=_drifted(TODAY)).granted
    assert [entry.kind for entry in _entries(settings)] == ["request", "decision"]


# --- taking up ---


def test_a_granted_request_is_taken_up_by_one_run(settings: Settings) -> None:
    request_id = _ask(settings, drift=_drifted(TODAY)).request_id
    taken = _ask(settings, request_id=request_id, run="train-1")
    assert (taken.granted, taken.trigger, taken.as_of, taken.waiting) == (True, "drift", TODAY, [])
    assert _ask(settings, request_id=request_id, run="train-1") == taken  # a retry of the same run
    late = _ask(settings, request_id=request_id, run="train-2")
    assert (late.granted, late.why) == (False, "Run train-1 has taken the request already.")
    again = _ask(settings, drift=_drifted(TODAY))
    assert (again.granted, again.request_id) == (False, request_id)


def test_a_failed_run_releases_its_request_for_another_and_not_for_ever(settings: Settings) -> None:
    request_id = _ask(settings, drift=_drifted(TODAY)).request_id
    for number in range(1, MAXIMUM_RUNS + 1):
        run = f"train-{number}"
        assert _ask(settings, request_id=request_id, run=run).granted
        stranger = _ask(settings, request_id=request_id, run="another", failed=True)
        assert (stranger.granted, stranger.waiting) == (False, [])
        for _ in range(2):  # as a retry would
            back = _ask(settings, request_id=request_id, run=run, failed=True)
            assert (back.granted, back.waiting) == (False, [request_id] if number < MAXIMUM_RUNS else [])
    assert not _ask(settings, request_id=request_id, run="one-more").granted


def test_a_run_that_ended_before_its_result_could_name_the_request_releases_it(settings: Settings) -> None:
    request_id = _ask(settings, drift=_drifted(TODAY)).request_id
    assert _ask(settings, run="train-1", failed=True).waiting == [request_id]
    assert _ask(settings, request_id=request_id, run="train-1").waiting == []
    back = _ask(settings, run="train-1", failed=True)
    assert (back.granted, back.waiting) == (False, [request_id])


def test_a_persons_request_is_not_offered_to_others_when_its_run_fails(settings: Settings) -> None:
    asked = _ask(settings, trigger="person", reason="curious", run="manual-1")
    assert asked.granted
    assert _ask(settings, request_id=asked.request_id, run="manual-1", failed=True).waiting == []


def test_of_many_runs_at_once_one_takes_the_request(settings: Settings) -> None:
    request_id = _ask(settings, drift=_drifted(TODAY)).request_id
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda i: _ask(settings, request_id=request_id, run=f"train-{i}"), range(6)))
    assert sum(result.granted for result in results) == 1


def test_a_run_that_starts_by_itself_takes_its_request_at_once(settings: Settings) -> None:
    result = _ask(settings, trigger="schedule", run="scheduled-1")
    assert (result.granted, result.waiting) == (True, [])
    assert [entry.body.get("outcome") for entry in _entries(settings)] == [None, "granted", "taken"]


def test_what_waits_is_told_to_every_caller_oldest_first(settings: Settings) -> None:
    triggers = ({"drift": _drifted(TODAY)}, {"trigger": "new_data"}, {"trigger": "code"})
    asked = [_ask(settings, **trigger).request_id for trigger in triggers]
    quiet = DriftResult(outcome="measured", as_of=TODAY, champion_version=1)
    assert _ask(settings, drift=quiet).waiting == asked
    assert _ask(settings, request_id=asked[0], run="train-1").waiting == asked[1:]


def test_a_refused_request_cannot_be_taken_up(settings: Settings) -> None:
    _ask(settings, drift=_drifted(TODAY))
    refused = _ask(settings, drift=_drifted(TODAY + timedelta(days=1)))
    result = _ask(settings, request_id=refused.request_id, run="train-1")
    assert not result.granted
    assert result.why.startswith("Cooldown")
    assert refused.request_id not in result.waiting


# --- what is refused outright ---


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"trigger": "drift", "force": True}, "Only a person may force"),
        ({"drift": _drifted(TODAY), "force": True}, "Only a person may force"),
        ({}, "No reason to train was given"),
        ({"request_id": "drift-123"}, "names both: request_id and run"),
        ({"request_id": "drift-123", "run": "r", "trigger": "drift"}, "names both: request_id and run"),
        ({"request_id": "drift-123", "run": "r"}, "no request 'drift-123'"),
    ],
)
def test_inputs_that_do_not_say_what_is_asked(settings: Settings, fields: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        _ask(settings, **fields)
    assert _entries(settings) == []


def test_a_person_is_granted_within_the_cooldown(settings: Settings) -> None:
    _ask(settings, drift=_drifted(TODAY))
    result = _ask(settings, trigger="person", as_of=TODAY, force=True, run="manual-1")
    assert result.granted
    assert _entries(settings, "request")[-1].body["force"] is True


# --- what monitoring could not measure ---


def _look(
    settings: Settings, as_of: date, outcome: str = "no predictions", champion_version: int = 1
) -> DecideRetrainingResult:
    """One run of monitoring: no drift, and this outcome for performance."""
    drift = DriftResult(outcome="measured", as_of=as_of, champion_version=champion_version)
    window = Days.ending(as_of - timedelta(days=7), 7)
    return _ask(settings, drift=drift, performance=PerformanceResult(outcome=outcome, window=window))


def test_a_monitor_that_cannot_measure_for_too_long_fails_the_run_when_all_is_decided(settings: Settings) -> None:
    _look(settings, TODAY, "measured")
    for day in (14, 15):
        _look(settings, TODAY + timedelta(days=day))
    for _ in range(2):  # cleared, it fails again
        with pytest.raises(DataContractError) as raised:
            _look(settings, TODAY + timedelta(days=16))
    first, window = TODAY + timedelta(days=14), Days.ending(TODAY + timedelta(days=9), 7)
    assert raised.value.message == (
        f"The performance of {MODEL} could not be measured in 3 successive runs, as of {first} and later: "
        f"no predictions of version 1 in {window}"
    )
    assert len(_entries(settings, "monitoring_run")) == 4
    _look(settings, TODAY + timedelta(days=17), "measured")
    _look(settings, TODAY + timedelta(days=18))


def test_a_lake_restored_from_an_older_copy_fails_the_next_monitoring_run(settings: Settings, tmp_path: Path) -> None:
    lake = Lake(settings.lake, SOURCE, MODEL)

    def land(number: int) -> None:
        rows = pa.table({"n": [number], "partition": [str(number)]})
        lake.replace("events", rows, f"partition = '{number}'", ["partition"])

    def look(day: int) -> DecideRetrainingResult:
        versions = lake.versions("events")
        snapshot = Snapshot(as_of=TODAY + timedelta(days=day), table_versions=versions, champion_version=1)
        return _ask(settings, drift=DriftResult(outcome="measured", snapshot=snapshot))

    land(1)
    look(1)
    shutil.copytree(settings.lake, tmp_path / "kept")
    land(2)
    look(2)
    lost = lake.version("events")
    shutil.rmtree(settings.lake)
    shutil.copytree(tmp_path / "kept", settings.lake)
    land(3)
    assert lake.version("events") == lost  # Another commit has its number.
    for _ in range(2):  # cleared, it fails again
        with pytest.raises(DataContractError) as raised:
            look(3)
        assert f"The lake has lost version {lost} of events" in raised.value.message
        assert f"trigger {SOURCE}_backfill" in raised.value.message
    land(4)
    look(4)


def test_a_look_that_is_repeated_counts_once(settings: Settings) -> None:
    _look(settings, TODAY, "measured")
    for _ in range(4):
        _look(settings, TODAY + timedelta(days=14))
    _look(settings, TODAY + timedelta(days=14), "too few labels")  # other data, the same day
    _look(settings, TODAY + timedelta(days=15))


def test_labels_of_a_new_champion_are_waited_for(settings: Settings) -> None:
    for day in range(14):
        _look(settings, TODAY + timedelta(days=day))
    for day in range(14, 28):  # by then another serves
        _look(settings, TODAY + timedelta(days=day), champion_version=2)


def test_drift_is_not_waited_for(settings: Settings) -> None:
    _look(settings, TODAY, "measured")
    for day in range(1, 3):
        _ask(settings, drift=_no_data(TODAY + timedelta(days=day)))
    with pytest.raises(DataContractError, match=r"drift of card_fraud .* 3 successive runs.*fewer than 1000 events"):
        _ask(settings, drift=_no_data(TODAY + timedelta(days=3)))


def test_without_a_champion_nothing_is_missing(settings: Settings) -> None:
    for day in range(5):
        _ask(settings, drift=DriftResult(outcome="no champion", as_of=START + timedelta(days=day)))
    assert _entries(settings, "monitoring_run") == []


def test_a_granted_request_that_waits_is_announced_before_a_lasting_failure_to_measure_fails_the_run(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    for day in range(2):
        _ask(settings, drift=_no_data(TODAY + timedelta(days=day)))
    waiting = _ask(settings, trigger="new_data", as_of=TODAY).waiting
    assert len(waiting) == 1
    lacking = _no_data(TODAY + timedelta(days=2))
    assert _ask(settings, drift=lacking).waiting == waiting
    assert "could not be measured in 3 successive runs" in caplog.text
    _ask(settings, request_id=waiting[0], run="a-run")
    with pytest.raises(DataContractError):
        _ask(settings, drift=lacking)


def _no_data(as_of: date) -> DriftResult:
    return DriftResult(outcome="no data", as_of=as_of, champion_version=1)


# --- what the version before wrote ---


def test_a_request_that_was_granted_before_ids_and_words_changed_is_taken(settings: Settings) -> None:
    """The ledger of Perennial 0.1: `look`, `given back`, `taken` without a snapshot, results with their own horizon."""
    ledger, id_ = Ledger(settings.ledger), "drift-0123456789ab"
    evidence = {"drift": {"outcome": "measured", "as_of": str(TODAY), "history_days": 35, "table_versions": {}}}
    asked = {"id": id_, "trigger": "drift", "seen": str(TODAY), "as_of": str(TODAY), "reason": "drift"}
    ledger.append("request", MODEL, {**asked, "champion_version": 1, "force": False, "evidence": evidence}, id_)
    ledger.append("decision", MODEL, {"request_id": id_, "outcome": "granted", "why": "Granted.", "run": ""}, id_)
    taken = {"request_id": id_, "outcome": "taken", "why": "", "run": "train-1"}
    ledger.append("decision", MODEL, taken, f"{id_}:taken:0")
    retried = _ask(settings, request_id=id_, run="train-1")  # The run goes on under the new version.
    assert retried.granted
    assert retried.snapshot is not None
    returned = {"request_id": id_, "outcome": "given back", "why": "The run failed.", "run": "train-1"}
    ledger.append("decision", MODEL, returned, f"{id_}:given back:1")
    assert _ask(settings, trigger="code").waiting[0] == id_
    assert _ask(settings, request_id=id_, run="train-2").granted
    assert not _ask(settings, request_id=id_, run="train-3").granted
    _ask(settings, request_id=id_, run="train-2", failed=True)
    assert [entry.body["outcome"] for entry in _entries(settings, "decision")][-1] == "released"


def test_monitoring_runs_of_the_version_before_count(settings: Settings) -> None:
    ledger = Ledger(settings.ledger)
    for day in range(2):
        body = {"as_of": str(TODAY + timedelta(days=day)), "champion_version": 1, "unmeasured": {"drift": "no events"}}
        ledger.append("look", MODEL, body, str(day))
    with pytest.raises(DataContractError, match="drift of card_fraud could not be measured in 3 successive runs"):
        _ask(settings, drift=_no_data(TODAY + timedelta(days=2)))
