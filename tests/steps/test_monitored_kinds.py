"""Performance and drift of a regression and of a multiclass task, through the steps: what labels show, what is
estimated before they come, how the outputs move; and lists of floats that are monitored as a whole."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, log_loss, mean_absolute_error, root_mean_squared_error

from testing.spec_files import own_spec_files
from tests.cases import others_in_ci, others_long
from tests.steps.parcels import (
    DURATION,
    HOLDOUT,
    LOOK,
    MATURED,
    NEWEST,
    NOTE,
    OUTCOME,
    OUTCOMES,
    TRAINED,
    Parcels,
    build,
    delivered,
    midnight,
    model_spec,
    source_spec,
)
from training.contract.base import Days
from training.contract.messages import DriftInputs, DriftResult, PerformanceInputs, PerformanceResult, Snapshot
from training.domain.encoding import encoded
from training.steps import drift, performance
from training.steps.backtest import past_monitors, past_trainings
from training.steps.backtest.own_state import make_place
from training.steps.backtest.past_events import PastEvents, mondays

#: What holds for one kind is computed by the same code for the other.
KINDS = others_in_ci([OUTCOME, DURATION])
PRIMARY = {DURATION: "rmse", OUTCOME: "log_loss"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Parcels:
    return build(tmp_path_factory.mktemp("parcels"), mlflow_database)


@pytest.fixture(scope="module")
def unestimated(world: Parcels, tmp_path_factory: pytest.TempPathFactory) -> Parcels:
    """The world with specs that ask for more rows than there are to estimate: for tests of what labels show. To fit
    what estimates a regression takes longer than all else here."""
    specs = [model_spec(name) for name in PRIMARY]
    for spec in specs:
        spec["monitoring"]["minimum_rows"] = len(world.rows)
    files = own_spec_files(tmp_path_factory.mktemp("unestimated"), specs, source_spec())
    return replace(world, settings=world.settings.model_copy(update=files))


@pytest.fixture(scope="module")
def measured(world: Parcels) -> Callable[[str], PerformanceResult]:
    """What is measured of a model in the world as it is."""
    return cache(lambda model: measure(world, model, world.snapshot(model)))


def within(rows: pd.DataFrame, days: Days) -> pd.Series:
    return (rows["sent_at"] >= midnight(days.start)) & (rows["sent_at"] < midnight(days.end))


def measure(world: Parcels, model: str, snapshot: Snapshot) -> PerformanceResult:
    return performance.run(PerformanceInputs(model=model, snapshot=snapshot), world.settings)


def look(world: Parcels, model: str, snapshot: Snapshot, run: str) -> DriftResult:
    """Drift of the newest window in the lake as it is now: the step resolves the snapshot of its run itself."""
    assert snapshot.as_of is not None
    return drift.run(DriftInputs(model=model, run=run, as_of=snapshot.as_of), world.settings)


def scores(world: Parcels, model: str, rows: pd.DataFrame) -> np.ndarray:
    loaded = world.champion(model).model
    columns = loaded.metadata.columns
    return loaded.score(encoded({column.name: rows[column.name].to_numpy() for column in columns}, columns))


# --- performance on matured labels ---


@pytest.mark.parametrize("model", KINDS)
def test_what_labels_show_is_what_scikit_learn_computes_of_the_same_rows(
    world: Parcels, measured: Callable[[str], PerformanceResult], model: str
) -> None:
    result = measured(model)
    rows = world.rows[within(world.rows, MATURED)]
    found = scores(world, model, rows)
    assert (result.outcome, result.window, result.rows) == ("measured", MATURED, len(rows))
    assert (result.degraded, result.change, result.diagnosis) == (False, None, None)
    if model == DURATION:
        assert result.current["rmse"] == pytest.approx(root_mean_squared_error(rows["hours"], found))
        assert result.current["mae"] == pytest.approx(mean_absolute_error(rows["hours"], found))
        assert result.counts == {}
    else:
        names = sorted(OUTCOMES)
        likeliest = np.array(names)[found.argmax(axis=1)]
        assert result.current["log_loss"] == pytest.approx(log_loss(rows["outcome"], found, labels=names), rel=1e-5)
        assert result.current["macro_f1"] == pytest.approx(f1_score(rows["outcome"], likeliest, average="macro"))
        assert result.counts == rows["outcome"].value_counts().to_dict()
    assert result.test is not None
    assert result.test.metric == PRIMARY[model]


@pytest.mark.parametrize("model", KINDS)
def test_labels_that_follow_another_rule_are_degraded_dated_and_diagnosed(
    world: Parcels, unestimated: Parcels, model: str
) -> None:
    """From a day of the matured window on, long ways take much longer."""
    changed = MATURED.start + (MATURED.end - MATURED.start) // 3
    hit = (world.rows["distance"] > 600) & (world.rows["sent_at"] >= midnight(changed))
    later = world.rows.assign(
        hours=world.rows["hours"].mask(hit, world.rows["hours"] + 60),
        outcome=world.rows["outcome"].mask(hit, "early"),
    )
    result = measure(unestimated, model, world.labelled(model, later))
    assert (result.outcome, result.degraded, result.change) == ("measured", True, changed)
    assert result.current[PRIMARY[model]] > result.reference[PRIMARY[model]]
    assert result.diagnosis is not None
    assert result.diagnosis.now > result.diagnosis.before
    where = " and ".join(each.where for each in result.diagnosis.segments)
    bounds = [float(first or second) for first, second in re.findall(r"distance > ([\d.]+)|([\d.]+) < distance", where)]
    assert min(bounds) == pytest.approx(600, abs=60)


# --- estimates before labels come ---


def harder(model: str, events: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Rows of which inputs alone say that they are harder: rough roads, and ways between two outcomes."""
    if model == DURATION:
        return events.assign(road="rough")
    return events.assign(distance=random.uniform(230, 320, len(events)), road="smooth")


@pytest.mark.parametrize("model", KINDS)
def test_estimates_are_held_against_what_labels_showed_and_are_trusted(
    world: Parcels, measured: Callable[[str], PerformanceResult], model: str
) -> None:
    result = measured(model)
    found, primary = result.estimated, PRIMARY[model]
    assert found is not None
    assert (found.window, found.degraded, found.trusted) == (NEWEST, False, True)
    assert found.compared[0].window.end == MATURED.end
    assert len(found.compared) == 3
    assert found.compared[0].realised == pytest.approx(result.current[primary])
    rows = world.rows[within(world.rows, NEWEST)]
    truth = rows["hours"] if model == DURATION else rows["outcome"]
    given = scores(world, model, rows)
    real = (
        root_mean_squared_error(truth, given) if model == DURATION else log_loss(truth, given, labels=sorted(OUTCOMES))
    )
    assert found.low < real < found.high
    assert found.low < found.metrics[primary] < found.high


@pytest.mark.parametrize("model", KINDS)
def test_harder_rows_degrade_the_estimate_as_much_as_their_labels_show_later(world: Parcels, model: str) -> None:
    random, newest = np.random.default_rng(3), within(world.rows, NEWEST)
    changed = delivered(harder(model, world.rows[newest], random), random)
    rows = pd.concat([world.rows[~newest], changed], ignore_index=True)
    # Labels of the newest window are not known yet, whatever they are.
    result = measure(world, model, world.snapshot(model, rows))
    found, primary = result.estimated, PRIMARY[model]
    assert not result.degraded
    assert found is not None
    assert found.degraded
    assert found.test is not None
    assert found.test.drop > found.test.allowed
    measured = scores(world, model, changed)
    real = (
        root_mean_squared_error(changed["hours"], measured)
        if model == DURATION
        else log_loss(changed["outcome"], measured, labels=sorted(OUTCOMES))
    )
    assert found.metrics[primary] == pytest.approx(real, rel=0.2)


@pytest.mark.parametrize("model", KINDS)
def test_labels_alone_do_not_change_the_estimate(
    world: Parcels, measured: Callable[[str], PerformanceResult], model: str
) -> None:
    newest = within(world.rows, NEWEST)
    wrong = world.rows.assign(
        hours=world.rows["hours"].mask(newest, 1e4), outcome=world.rows["outcome"].mask(newest, "early")
    )
    before, after = measured(model).estimated, measure(world, model, world.labelled(model, wrong)).estimated
    assert before is not None
    assert after is not None
    assert after.metrics == before.metrics


# --- odd windows ---


def test_a_class_that_no_event_of_the_window_has_is_left_out(world: Parcels) -> None:
    matured = within(world.rows, MATURED)
    rows = world.rows[~(matured & (world.rows["outcome"] == "late"))]
    result = measure(world, OUTCOME, world.snapshot(OUTCOME, rows))
    assert result.outcome == "measured"
    assert set(result.counts) == {"early", "due"}
    assert np.isfinite(list(result.current.values())).all()
    assert result.estimated is not None


def test_a_class_that_the_champion_does_not_know_counts_as_an_error(world: Parcels, unestimated: Parcels) -> None:
    matured = within(world.rows, MATURED)
    rows = world.rows.assign(outcome=world.rows["outcome"].mask(matured & (world.rows["weight"] > 3), "lost"))
    result = measure(unestimated, OUTCOME, world.labelled(OUTCOME, rows))
    assert (result.outcome, result.degraded) == ("measured", True)
    assert result.counts["lost"] > 0


def test_one_class_only_measures_nothing_and_says_so(world: Parcels, unestimated: Parcels) -> None:
    rows = world.rows.assign(outcome=world.rows["outcome"].mask(within(world.rows, MATURED), "due"))
    result = measure(unestimated, OUTCOME, world.labelled(OUTCOME, rows))
    assert (result.outcome, result.degraded, result.current) == ("too few labels", False, {})
    assert "1 classes with 20 rows, where two are needed" in result.lacks


@pytest.mark.ci
def test_one_number_only_measures_nothing_and_says_so(world: Parcels, unestimated: Parcels) -> None:
    rows = world.rows.assign(hours=world.rows["hours"].mask(within(world.rows, MATURED), 24.0))
    result = measure(unestimated, DURATION, world.labelled(DURATION, rows))
    assert (result.outcome, result.degraded, result.current) == ("too few labels", False, {})
    assert "one label only, 24" in result.lacks


@pytest.mark.ci
@pytest.mark.parametrize("model", KINDS)
def test_a_champion_that_gives_all_rows_one_answer_has_degraded(
    world: Parcels, unestimated: Parcels, model: str
) -> None:
    """As a model does whose features are all missing."""

    def constant(answers: pd.DataFrame) -> pd.DataFrame:
        names = [name for name in answers.columns if name in (*OUTCOMES, "value", "lower", "upper")]
        return answers.assign(**{name: answers[name].iloc[0] for name in names})

    result = measure(unestimated, model, world.snapshot(model, scores=constant))
    assert (result.outcome, result.degraded) == ("measured", True)


@pytest.mark.ci
def test_answers_that_are_no_numbers_are_counted_and_left_out(world: Parcels, unestimated: Parcels) -> None:
    def broken(answers: pd.DataFrame) -> pd.DataFrame:
        return answers.assign(value=answers["value"].mask(answers.index % 10 == 0, np.inf))

    result = measure(unestimated, DURATION, world.snapshot(DURATION, scores=broken))
    assert (result.outcome, result.degraded) == ("measured", False)
    assert result.not_finite == pytest.approx(result.rows / 9, abs=10)


# --- drift of outputs and of lists of floats ---


@pytest.mark.ci
@pytest.mark.parametrize("model", KINDS)
def test_nothing_has_drifted_where_nothing_has_changed(world: Parcels, model: str) -> None:
    found = look(world, model, world.snapshot(model, world.rows), f"same {model}")
    assert (found.outcome, found.window) == ("measured", NEWEST)
    assert {"note", "distance", "_value" if model == DURATION else "_class"} <= found.columns.keys()
    assert [name for name, column in found.columns.items() if column.drifted] == []


@pytest.mark.ci
@pytest.mark.parametrize(("model", "moved"), [(OUTCOME, {"_class"}), (DURATION, {"_value"})])
def test_outputs_that_moved_are_found_though_no_feature_did(world: Parcels, model: str, moved: set[str]) -> None:
    def other(answers: pd.DataFrame) -> pd.DataFrame:
        newest = within(answers, NEWEST)
        if model == DURATION:
            return answers.assign(value=answers["value"].where(~newest, answers["value"] * 1.5))
        late, early = answers["late"], answers["early"]
        return answers.assign(late=late.where(~newest, late + early), early=early.where(~newest, 0.0))

    found = look(world, model, world.snapshot(model, world.rows, scores=other), f"outputs {model}")
    assert found.drifted
    drifted = {name for name, column in found.columns.items() if column.drifted}
    assert moved <= drifted
    assert {name for name in drifted if not name.startswith("_")} == set()


def other_encoder(notes: np.ndarray, random: np.random.Generator) -> list[np.ndarray | None]:
    """Elements in another order, and not on one scale: no single one looks odd."""
    return list((notes[:, ::-1] * np.linspace(0.5, 1.5, NOTE)).astype(np.float32))


def zeros(notes: np.ndarray, random: np.random.Generator) -> list[np.ndarray | None]:
    """One in ten has nothing but zeros, as from an encoder that got no text."""
    return list(np.where(random.random((len(notes), 1)) < 0.1, np.float32(0), notes))


def missing(notes: np.ndarray, random: np.random.Generator) -> list[np.ndarray | None]:
    return [None if gone else note for gone, note in zip(random.random(len(notes)) < 0.1, notes, strict=True)]


def no_numbers(notes: np.ndarray, random: np.random.Generator) -> list[np.ndarray | None]:
    """One in ten holds an element that is no number: such a list counts as missing."""
    return list(np.where((random.random((len(notes), 1)) < 0.1) & (np.arange(NOTE) == 2), np.float32(np.nan), notes))


def infinite(notes: np.ndarray, random: np.random.Generator) -> list[np.ndarray | None]:
    return list(np.where((random.random((len(notes), 1)) < 0.1) & (np.arange(NOTE) == 2), np.float32(np.inf), notes))


def longer(notes: np.ndarray, random: np.random.Generator) -> list[np.ndarray | None]:
    """Of an encoder with more elements."""
    return list(np.column_stack([notes, notes[:, :2]]))


@pytest.mark.parametrize(
    "change", [*others_in_ci([other_encoder, zeros]), *others_long([missing, no_numbers, infinite, longer], first=0)]
)
def test_lists_of_floats_that_are_other_ones_are_found(
    world: Parcels, change: Callable[[np.ndarray, np.random.Generator], list[np.ndarray | None]]
) -> None:
    newest = within(world.rows, NEWEST)
    notes = world.rows["note"].copy()
    made = change(np.stack(world.rows.loc[newest, "note"].tolist()), np.random.default_rng(4))
    notes[newest] = pd.Series(made, index=notes.index[newest], dtype=object)
    snapshot = world.snapshot(OUTCOME, world.rows.assign(note=notes))
    found = look(world, OUTCOME, snapshot, f"note {change.__name__}")
    assert (found.outcome, found.window) == ("measured", NEWEST)
    assert {"note", "distance", "_class"} <= found.columns.keys()
    assert found.drifted
    assert [name for name, column in found.columns.items() if column.drifted] == ["note"]
    assert snapshot.as_of == LOOK


@pytest.mark.ci
def test_a_backtest_compares_lists_of_floats_too(world: Parcels) -> None:
    """As the step does, on the events that it keeps."""
    snapshot = world.snapshot(DURATION, world.rows)
    place = make_place(world.spec(DURATION), world.settings)
    newest = world.rows[within(world.rows, NEWEST)]
    days = sorted(set(newest["sent_at"].dt.date))
    for week in mondays(Days(start=days[0], end=days[-1])):
        PastEvents(place).compute(week)
    training = past_trainings.train(place, TRAINED, None, ["hist_gradient_boosting"])
    assert (training.failed, training.version) == ("", 1)
    found = past_monitors.drift(place, LOOK, training, HOLDOUT.end)
    live = look(world, DURATION, snapshot, "beside a backtest")
    assert found.outcome == "measured"
    assert {name: column.shift for name, column in found.columns.items()} == {
        name: column.shift for name, column in live.columns.items()
    }
