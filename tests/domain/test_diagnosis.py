"""Where performance fell: planted segments are found and measured, chance is not."""

import numpy as np
import pytest

from training.contract.feature_definitions import FeatureColumn
from training.contract.messages import Diagnosis
from training.domain.diagnosis import Losses, diagnose

COLUMNS = (
    FeatureColumn(name="amount"),
    FeatureColumn(name="country", categories=("NL", "BE", "DE", "FR")),
    FeatureColumn(name="age", may_be_missing=True),
    FeatureColumn(name="output score"),
)


def side(seed: int, n: int = 4000) -> Losses:
    random = np.random.default_rng(seed)
    values = np.column_stack(
        [random.lognormal(3, 1, n), random.integers(0, 4, n), random.normal(40, 10, n), random.random(n)]
    )
    values[random.random(n) < 0.1, 2] = np.nan
    entities = random.integers(0, 400, n)
    return Losses(values, random.exponential(1.0, n) * (0.5 + np.random.default_rng(1).random(400))[entities], entities)


def with_losses(rows: Losses, where: np.ndarray, factor: float) -> Losses:
    return Losses(rows.values, np.where(where, factor, 1.0) * rows.losses, rows.entities)


def found(before: Losses, now: Losses) -> Diagnosis:
    return diagnose(before, now, COLUMNS, "log loss", 0.95, seed=3)


@pytest.mark.parametrize("seed", range(3))
def test_a_segment_of_numbers_is_found_and_measured_on_other_entities(seed: int) -> None:
    now = side(10 + seed)
    where = now.values[:, 0] > 60
    diagnosis = found(side(seed), with_losses(now, where, 3.0))
    first = diagnosis.segments[0]
    assert first.where.startswith("amount > ")
    assert float(first.where.split()[2]) == pytest.approx(60, rel=0.1)
    assert first.low < 2.0 < first.high
    assert first.share == pytest.approx(where.mean(), abs=0.03)
    assert diagnosis.now > diagnosis.before


def test_a_segment_of_texts_is_named_by_them() -> None:
    now = side(20)
    diagnosis = found(side(21), with_losses(now, now.values[:, 1] == 3, 3.0))
    assert diagnosis.segments[0].where == "country is FR"


def test_a_text_that_was_not_seen_in_training_is_named_so() -> None:
    now = side(22)
    values = now.values.copy()
    values[:800, 1] = 4
    now = with_losses(Losses(values, now.losses, now.entities), values[:, 1] == 4, 4.0)
    diagnosis = found(side(23), now)
    assert "country" in diagnosis.moved
    assert diagnosis.moved["country"].current == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("kept", [0, 5])
def test_rows_of_a_kind_that_was_not_there_before_are_a_segment(kept: int) -> None:
    """Such as new customers: they are compared with all rows of the holdout."""
    before, now = side(30), side(31)
    young = np.flatnonzero(before.values[:, 0] < 10)[kept:]
    before = before.some(np.setdiff1d(np.arange(4000), young))
    where = now.values[:, 0] < 10
    first = found(before, with_losses(now, where, 4.0)).segments[0]
    assert first.where.startswith("amount ≤ ")
    assert first.share_before <= 0.01 < first.share
    assert first.loss_before == pytest.approx(before.losses.mean(), rel=0.1)
    # A kind of rows that loses no more than others is no reason, though it is new.
    assert not any("amount ≤" in each.where for each in found(before, now).segments)


def test_missing_values_belong_to_a_segment_in_words() -> None:
    now = side(24)
    diagnosis = found(side(25), with_losses(now, np.isnan(now.values[:, 2]), 5.0))
    assert "missing" in diagnosis.segments[0].where


def test_features_that_moved_are_named() -> None:
    now = side(26)
    where = now.values[:, 0] > 60
    values = now.values.copy()
    values[:, 3] /= 2
    diagnosis = found(side(27), with_losses(Losses(values, now.losses, now.entities), where, 3.0))
    assert list(diagnosis.moved) == ["output score"]
    assert diagnosis.moved["output score"].part.startswith("at most")
    assert "output score" in f"{diagnosis.segments[0]}"


@pytest.mark.long
def test_without_a_change_segments_are_as_rare_as_the_confidence_says() -> None:
    alarms = [bool(found(side(100 + 2 * i, 2000), side(101 + 2 * i, 2000)).segments) for i in range(40)]
    assert np.mean(alarms) <= 0.1
