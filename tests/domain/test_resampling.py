"""What a bootstrap draws: entities where there are enough, else time, else nothing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.domain.evaluation_set import EvaluationSet
from training.domain.metrics import paired_differences
from training.domain.resampling import MINIMUM_CLUSTERS, PARTS, Clusters, clusters_of, effective_count
from training.domain.tasks.binary import ScoredBinary

HOUR = np.timedelta64(1, "h")


def truth(entities: np.ndarray | list | None, hours: np.ndarray, share: float = 0.3, seed: int = 0) -> EvaluationSet:
    """Rows at these hours after a midnight."""
    times = np.datetime64("2026-01-05T00:30") + hours * HOUR
    labels = np.random.default_rng(seed).random(len(hours)) < share
    return EvaluationSet.of(labels.astype(int), entities, times.astype("datetime64[D]"), times)


def ranked(truth: EvaluationSet, scores: np.ndarray, k: int) -> ScoredBinary:
    return ScoredBinary(truth, scores, ("roc_auc", "average_precision", "precision_at_k"), k, scores > 0.5)


@pytest.mark.parametrize("count", [1, 2, 5, 29])
@pytest.mark.parametrize(
    ("days", "drawn"), [(40, "days (40)"), (7, "blocks of 4 hours (42)"), (2, "blocks of an hour (48)")]
)
def test_few_entities_give_way_to_time(count: int, days: int, drawn: str) -> None:
    hours = np.arange(24 * days)
    clusters = truth(hours % count, hours).clusters
    said = f"{count} distinct {'entity is' if count == 1 else 'entities are'} fewer than 30"
    assert (clusters.described, clusters.by_time) == (f"{drawn}, because {said}", True)
    _, numbers = np.unique(clusters.numbers, return_inverse=True)
    assert (np.diff(numbers) >= 0).all()


def test_thirty_entities_are_drawn_whole() -> None:
    hours = np.arange(240)
    clusters = truth(hours % 30, hours).clusters
    assert (clusters.described, clusters.by_time, clusters.count) == ("whole entities (30)", False, 30)


def test_an_entity_that_has_nearly_all_rows_is_one_cluster_too_few() -> None:
    hours = np.arange(24 * 40)
    entities = np.where(hours % 10 < 8, 0, hours)
    assert len(np.unique(entities)) > 30
    assert "entities of very unequal size count for 1, fewer than 30" in truth(entities, hours).clusters.described


def test_without_enough_of_anything_there_are_no_samples() -> None:
    hours = np.arange(29).repeat(10)
    known = truth(hours % 3, hours)
    assert known.clusters.count == 0
    assert "3 distinct entities are fewer than 30" in known.clusters.described
    assert "29 blocks of an hour: 30 are needed" in known.clusters.described
    scores = np.random.default_rng(1).random(len(hours))
    better, worse = ranked(known, known.labels + scores, 5), ranked(known, scores, 5)
    assert len(paired_differences(better, worse, "average_precision", 100, 0)) == 0


def test_without_times_a_day_is_the_shortest_block() -> None:
    days = np.arange(20).repeat(10)
    clusters = EvaluationSet.of(days % 2, np.zeros(200), days).clusters
    assert (clusters.count, "the rows are in 20 days" in clusters.described) == (0, True)
    days = np.arange(35).repeat(10)
    assert EvaluationSet.of(days % 2, np.zeros(350), days).clusters.count == 35


def test_each_null_is_an_entity_of_its_own() -> None:
    hours = np.arange(6)
    for entities in (
        [1, 1, None, None, 2, None],
        ["a", "a", None, None, "b", None],
        pd.Series([5, 5, None, None, 7, None]),
    ):
        assert truth(entities, hours, 0.5, seed=1).entities.tolist() == [0, 0, 2, 3, 1, 4]


def test_times_with_a_zone_are_the_same_hours() -> None:
    there = pd.Series(pd.date_range("2026-01-05", periods=48, freq="h", tz="Europe/Paris"))
    days = there.dt.tz_convert("UTC").dt.floor("D")
    hours = EvaluationSet.of(np.arange(48) % 2, np.zeros(48), days, there).hours
    assert hours is not None
    assert hours[0] % 24 == 23


@given(st.lists(st.integers(0, 60), min_size=1, max_size=300))
def test_every_row_is_drawn_with_its_cluster(entities: list[int]) -> None:
    numbered = np.unique(entities, return_inverse=True)[1]
    hours = np.arange(len(entities))
    clusters = clusters_of(numbered, hours // 24, hours)
    assert 1 <= effective_count(numbered) <= len(set(entities)) + 1e-9
    if not clusters.count:
        return
    assert clusters.count >= MINIMUM_CLUSTERS
    sample = clusters.draw(np.random.default_rng(0))
    assert (len(sample.entity_weights), sample.by_time) == (len(entities), clusters.by_time)
    for number in range(clusters.count):
        assert len(set(sample.entity_weights[clusters.numbers == number])) == 1


def test_without_an_entity_time_is_drawn() -> None:
    hours = np.arange(24 * 40)
    clusters = truth(None, hours).clusters
    assert (clusters.described, clusters.by_time) == ("days (40), because the spec names no entity", True)


def test_parts_divide_a_day() -> None:
    assert all(24 % part == 0 for part in PARTS)


def test_a_difference_by_chance_between_models_of_one_entity_is_not_certain() -> None:
    """Of one entity every sample is the data itself, and any difference has an interval without width."""
    random, hours = np.random.default_rng(2), np.arange(24 * 30)
    known = truth(np.zeros(len(hours)), hours)
    one, other = (ranked(known, known.labels + random.normal(0, 1, len(hours)), 20) for _ in range(2))
    for metric in ("roc_auc", "average_precision", "precision_at_k"):
        differences = paired_differences(one, other, metric, 200, seed=1)
        if metric != "precision_at_k":  # with one entity there is nothing to rank
            assert differences.std() > 0.001
            assert np.quantile(differences, 0.05) < 0 < np.quantile(differences, 0.95)


def test_a_day_that_is_drawn_twice_counts_twice_in_precision_at_k() -> None:
    """Day 0: the one entity that is checked is positive. Day 1: it is not. Other entities on each day."""
    known = EvaluationSet.of([1, 0, 0, 1], [0, 1, 2, 3], [0, 0, 1, 1])
    ranking = ranked(known, np.array([0.9, 0.1, 0.9, 0.1]), 1)
    days = Clusters(known.days, 2, True, "")
    for entity_weights, expected in (([1, 1], 1 / 2), ([2, 0], 1.0), ([0, 2], 0.0), ([3, 1], 3 / 4)):
        sample = type(days.draw(np.random.default_rng(0)))(np.array(entity_weights)[known.days], by_time=True)
        assert ranking.value("precision_at_k", sample) == pytest.approx(expected)
