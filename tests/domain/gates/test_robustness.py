"""How predictions change with features, on odd columns and for every kind of prediction."""

from collections.abc import Callable

import numpy as np
import pytest

from training.contract.columns import Column
from training.contract.feature_definitions import FeatureColumn, FeatureDefinitions, ViewColumn, ViewDefinition
from training.contract.gate_limits import ChangeLimits, RobustnessSpec
from training.contract.messages import Perturbation, Robustness
from training.domain.gates.column_changes import ColumnChanges, column_changes
from training.domain.gates.robustness import gates, robustness
from training.domain.tasks.binary import ServedBinary
from training.domain.tasks.multiclass import ServedMulticlass
from training.domain.tasks.regression import ServedRegression

NAN = float("nan")
ROWS = np.random.default_rng(0).normal(0, 1, (400, 2)).astype(np.float32)
TWO = [ColumnChanges("a", 0, -4, 4, 1), ColumnChanges("b", 1, -4, 4, 1, missing=NAN)]
SPEC = RobustnessSpec()
BINARY = ServedBinary(0.5)

Score = Callable[[np.ndarray], np.ndarray]


def first(rows: np.ndarray) -> np.ndarray:
    """The first column decides."""
    return (rows[:, 0] > 0).astype(np.float32)


def by_name(found: Robustness) -> dict[str, Perturbation]:
    return {test.name: test for test in found.tests}


def test_what_flips_is_what_the_model_looks_at() -> None:
    found = by_name(robustness(SPEC, first, BINARY, ROWS, TWO, 1))
    noise, boundary = found["noise"], found["boundary"]
    assert noise.changed is not None
    # P(sign of x changes by noise of 0.1 deviations) = arctan(0.1) / π.
    assert noise.changed == pytest.approx(np.arctan(0.1) / np.pi, abs=0.02)
    assert found["missing"].columns == 1
    assert found["missing"].changed == 0
    # At each end of `a` about half of the decisions flip, at those of `b` none.
    assert boundary.changed == pytest.approx(0.25, abs=0.03)
    assert boundary.rows == 4 * len(ROWS)
    assert set(boundary.worst) == {"a = -4", "a = 4", "b = -4", "b = 4"}
    assert boundary.worst["b = 4"] == 0
    assert set(noise.by_decision) == {"pass", "alert"}


def test_rare_decisions_have_a_share_of_their_own_and_count_as_they_occur() -> None:
    rows = np.random.default_rng(3).uniform(0, 1, (20_000, 1)).astype(np.float32)
    changes = [ColumnChanges("x", 0, 0, 1, 0.2)]
    found = robustness(SPEC.model_copy(update={"rows": 400}), lambda x: x[:, 0], ServedBinary(0.99), rows, changes, 1)
    assert found.rows == pytest.approx(400, abs=2)
    noise = by_name(found)["noise"]
    # About 1 % are alerts. At a distance of up to 0.01 from the threshold, noise of 0.02 makes many of them pass.
    assert set(noise.by_decision) == {"pass", "alert"}
    assert 0.2 < noise.by_decision["alert"] < 0.5
    assert noise.changed == pytest.approx(
        0.01 * noise.by_decision["alert"] + 0.99 * noise.by_decision["pass"], abs=2e-3
    )
    boundary = by_name(found)["boundary"]
    assert boundary.worst["x = 0"] == pytest.approx(0.01, abs=0.003)
    assert boundary.worst["x = 1"] == pytest.approx(0.99, abs=0.003)


def test_the_same_seed_gives_the_same_and_limits_are_kept() -> None:
    limits = ChangeLimits(noise=0.5, boundary=0.1)
    spec = SPEC.model_copy(update={"maximum_changed": limits})
    found = robustness(spec, first, BINARY, ROWS, TWO, 1)
    assert found == robustness(spec, first, BINARY, ROWS, TWO, 1)
    assert found != robustness(spec, first, BINARY, ROWS, TWO, 2)
    noise, missing, boundary = gates(found)
    assert (noise.passed, missing.passed, boundary.passed) == (True, True, False)
    assert "of the decisions flip; at most 50.00% may" in noise.sentence
    assert "no limit is set" in missing.sentence
    assert "most where a = " in boundary.sentence


def test_a_prediction_that_is_no_number_fails_without_any_limit() -> None:
    def score(rows: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(rows[:, 1]), np.float32(NAN), first(rows))

    found = robustness(SPEC, score, BINARY, ROWS, TWO, 1)
    noise, missing, boundary = gates(found)
    assert (noise.passed, missing.passed, boundary.passed) == (True, False, True)
    assert f"{by_name(found)['missing'].not_finite} of 400 predictions are not a number" in missing.sentence
    everywhere = robustness(SPEC, lambda rows: np.full(len(rows), np.nan, np.float32), BINARY, ROWS, TWO, 1)
    assert not any(gate.passed for gate in gates(everywhere))


def test_a_regression_is_measured_in_distances_between_the_quartiles() -> None:
    bounds = tuple(np.quantile(ROWS[:, 0], np.arange(1, 20) / 20).tolist())
    found = by_name(robustness(SPEC, lambda rows: rows[:, 0], ServedRegression(bounds=bounds), ROWS, TWO, 1))
    spread = bounds[14] - bounds[4]
    assert found["noise"].changed == pytest.approx(0.1 * np.sqrt(2 / np.pi) * ROWS[:, 0].std() / spread, rel=0.2)
    assert found["boundary"].worst["a = 4"] == pytest.approx(np.mean(4 - ROWS[:, 0]) / spread, rel=1e-4)


def test_a_regression_whose_predictions_are_equal_has_no_number_and_keeps_no_limit() -> None:
    spec = SPEC.model_copy(update={"maximum_changed": ChangeLimits(noise=0.1)})
    served = ServedRegression(bounds=(5.0,) * 19)
    noise, missing, boundary = gates(robustness(spec, lambda rows: rows[:, 0], served, ROWS, TWO, 1))
    assert (noise.passed, missing.passed, boundary.passed) == (False, True, True)
    assert "cannot be measured" in noise.sentence


def test_several_classes() -> None:
    def score(rows: np.ndarray) -> np.ndarray:
        return np.column_stack([rows[:, 0], rows[:, 1], np.zeros(len(rows))]).astype(np.float32)

    found = by_name(robustness(SPEC, score, ServedMulticlass(("x", "y", "z")), ROWS, TWO, 1))
    assert found["boundary"].worst["b = 4"] == pytest.approx(np.mean(ROWS.argmax(axis=1) != 1), abs=0.3)
    assert set(found["noise"].by_decision) == {"x", "y", "z"}


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (np.full((50, 1), 3, np.float32), [ColumnChanges("constant", 0, 3, 3, whole=True)]),
        (np.full((50, 1), NAN, np.float32), [ColumnChanges("all missing", 0, NAN, NAN, missing=NAN)]),
        (np.array([[1.0]], np.float32), [ColumnChanges("one row", 0, 1, 1, missing=NAN)]),
        (np.zeros((50, 1), np.float32), [ColumnChanges("category only", 0, 0, 1, 0, True, (), 1, True, NAN)]),
        (np.array([[0], [1]] * 25, np.float32), [ColumnChanges("boolean", 0, 0, 1, whole=True)]),
        (np.array([[3e38], [-3e38]] * 25, np.float32), [ColumnChanges("huge", 0, -3e38, 3e38, 3e38)]),
        (np.zeros((50, 0), np.float32), []),
    ],
    ids=lambda value: value[0].name if isinstance(value, list) and value else "",
)
def test_odd_columns_change_within_their_rules_or_not_at_all(rows: np.ndarray, changes: list[ColumnChanges]) -> None:
    def score(given: np.ndarray) -> np.ndarray:
        assert given.dtype == np.float32
        assert not np.isinf(given).any()
        for change in changes:
            values = given[:, change.place]
            assert np.isnan(values).any() <= (change.missing is not None)
        return np.zeros(len(given), np.float32)

    found = robustness(SPEC, score, BINARY, rows, changes, 1)
    assert all(gate.passed for gate in gates(found))
    if not changes:
        assert all("no column can change so" in gate.sentence for gate in gates(found))


def test_noise_keeps_whole_numbers_whole_and_numbers_within_their_rules() -> None:
    rows = np.random.default_rng(0).integers(0, 30, (400, 3)).astype(np.float32)
    rows[:, 2] = np.random.default_rng(1).choice([2, 5, 9], 400)
    changes = [
        ColumnChanges("count", 0, 0, 29, 9, True),
        ColumnChanges("category", 1, 0, 30, 9, True, (), 30, False, NAN),
        ColumnChanges("listed", 2, 2, 9, 3, True, (2.0, 5.0, 9.0)),
    ]
    seen = []

    def score(given: np.ndarray) -> np.ndarray:
        seen.append(given)
        return np.zeros(len(given), np.float32)

    found = robustness(RobustnessSpec(noise=1.0), score, BINARY, rows, changes, 1)
    noisy = seen[1]
    assert by_name(found)["noise"].columns == 3
    assert (noisy[:, 0] == noisy[:, 0].round()).all()
    assert noisy[:, 0].min() >= 0
    assert noisy[:, 0].max() <= 29
    assert set(noisy[:, 1]) <= set(rows[:, 1])
    assert set(noisy[:, 2]) == {2, 5, 9}
    # All categories are known, so none is a boundary.
    assert by_name(found)["boundary"].columns == 2


def test_the_rules_come_from_the_source_and_the_definitions() -> None:
    views = ViewDefinition(
        name="v",
        entity="e",
        entity_type="INT64",
        ttl_seconds=1,
        columns=(ViewColumn(name="with_default", type="FLOAT"), ViewColumn(name="none", type="FLOAT", default=None)),
    )
    events = {
        "amount": Column(type="float64", minimum=0, maximum=100),
        "free": Column(type="int64", nullable=True),
        "flag": Column(type="bool"),
        "level": Column(type="int64", values=(1, 2, 4)),
        "price": Column(type="decimal(10, 2)", minimum="0.10"),
        "huge": Column(type="float64", minimum=-1e300, maximum=1e300),
        "country": Column(type="string", values=("fr", "de")),
    }
    definitions = FeatureDefinitions(views=(views,), request_views=(), event_features=tuple(events))
    names = [*events, "with_default", "none", "of_a_request"]
    columns = [
        FeatureColumn(name=name, categories=("fr", "de") if name == "country" else None, may_be_missing=True)
        for name in names
    ]
    rows = np.tile(np.arange(10, dtype=np.float32)[:, np.newaxis], (1, len(names)))
    found = {each.name: each for each in column_changes(columns, definitions, events, rows)}
    assert found["amount"].bounds == {"amount = 0": 0, "amount = 100": 100}
    assert found["amount"].missing is None, "a column that may not be null is never missing"
    assert (found["free"].low, found["free"].high, found["free"].whole) == (0, 9, True)
    assert np.isnan(found["free"].missing or 0)
    assert not found["flag"].noisy
    assert found["level"].within(np.array([0.0, 2.9, 3.1, NAN]))[:3].tolist() == [1, 2, 4]
    assert (found["price"].low, found["price"].high) == (0.1, 9)
    assert found["country"].bounds == {}
    assert np.isfinite(np.array(list(found["huge"].bounds.values()), np.float32)).all()
    assert found["with_default"].missing == 0
    assert np.isnan(found["none"].missing or 0)
    assert np.isnan(found["of_a_request"].missing or 0)
    # An artifact of the first schema has no definitions: what was seen is the rule.
    (old,) = column_changes([FeatureColumn(name="amount")], None, events, rows[:, :1])
    assert (old.low, old.high, old.missing) == (0, 9, None)
