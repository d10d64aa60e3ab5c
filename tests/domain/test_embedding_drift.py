import numpy as np
import pandas as pd
import pytest

from tests.cases import others_in_ci
from training.domain import drift
from training.domain.comparison import Rows, paired
from training.domain.embedding_drift import Half, domain_scores, with_domain_scores
from training.domain.shares import compare_shares

DIMENSIONS, DAYS = 16, pd.Timestamp("2026-01-01", tz="UTC")


def rows(vectors: np.ndarray, entities: np.ndarray, since: int = 0) -> Rows:
    lists = pd.Series(list(vectors.astype(np.float32)), dtype=object)
    times = DAYS + pd.to_timedelta(since + np.arange(len(vectors)) * 7 / len(vectors), unit="D")
    return Rows(pd.DataFrame({"text": lists}), pd.DataFrame({"user": entities, "time": times}))


def p_value(reference: Rows, current: Rows, seed: int = 0) -> float:
    """Of the column with the embeddings."""
    scored = with_domain_scores(reference, current, ["text"], "user", seed)
    return drift.tested([paired(*scored, ["user"], "time")], compare_shares, 0.02, 0.01, 1.0)["text"].p_value


def of_users(random: np.random.Generator, count: int, users: int = 300, spread: float = 1.0) -> tuple[np.ndarray, ...]:
    """Vectors whose rows resemble each other by user: each user has a center."""
    who = random.integers(0, users, count)
    centers = np.random.default_rng(5).normal(0, spread, (users, DIMENSIONS))
    return centers[who] + random.normal(size=(count, DIMENSIONS)), who


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda vectors: vectors + np.eye(DIMENSIONS)[3], id="one element moved"),
        pytest.param(lambda vectors: 1.3 * vectors, id="spread", marks=pytest.mark.ci),
        pytest.param(
            lambda vectors: np.where(np.arange(len(vectors))[:, None] % 10 == 0, 0, vectors),
            id="10 % zeros",
            marks=pytest.mark.ci,
        ),
        pytest.param(lambda vectors: vectors[:, ::-1] + np.linspace(0, 1, DIMENSIONS), id="another encoder"),
    ],
)
def test_a_change_is_found(change: object) -> None:
    random = np.random.default_rng(1)
    before, who = of_users(random, 4000)
    now, of_now = of_users(random, 3000)
    assert callable(change)
    assert p_value(rows(before, who), rows(change(now), of_now, 30)) < 1e-3


@pytest.mark.long
def test_false_alarms_are_rare_where_nothing_has_changed() -> None:
    random, found = np.random.default_rng(2), []
    for _ in range(40):
        (before, who), (now, of_now) = of_users(random, 800), of_users(random, 600)
        found.append(p_value(rows(before, who), rows(now, of_now, 30)))
    # A valid test calls 2 of 40 below 0.05 on average; 7 or more have a chance of 0.3 %.
    assert sum(value < 0.05 for value in found) < 7


def test_an_entity_lies_in_the_same_half_on_both_sides_and_missing_lists_have_no_score() -> None:
    random = np.random.default_rng(3)
    (before, who), (now, of_now) = of_users(random, 500), of_users(random, 400)
    reference, current = rows(before, who), rows(now, of_now, 30)
    reference.columns.loc[::7, "text"] = None
    scored = with_domain_scores(reference, current, ["text"], "user", 0)
    missing = scored[0].columns["text"].isna().to_numpy()
    assert (np.flatnonzero(missing) == np.arange(0, 500, 7)).all()
    assert scored[1].columns["text"].between(0, 1).all()


@pytest.mark.parametrize("count", [0, 1, 5, 30])
def test_too_few_or_equal_vectors_give_equal_scores(count: int) -> None:
    reference = Half(np.ones((count, 3)), np.arange(count) % 2 == 0)
    current = Half(np.ones((30, 3)), np.arange(30) % 2 == 0)
    for scores in domain_scores(reference, current):
        assert (scores == 0.5).all()


def test_a_column_that_is_missing_throughout() -> None:
    random = np.random.default_rng(4)
    (before, who), (now, of_now) = of_users(random, 100), of_users(random, 100)
    reference, current = rows(before, who), rows(now, of_now, 30)
    current.columns["text"] = None
    scored = with_domain_scores(reference, current, ["text"], "user", 0)
    assert scored[1].columns["text"].isna().all()
    found = drift.tested([paired(*scored, ["user"], "time")], compare_shares, 0.02, 0.01, 1.0)["text"]
    assert found.drifted


@pytest.mark.parametrize("odd", others_in_ci([np.nan, np.inf, -np.inf]))
def test_a_list_with_an_element_that_is_no_number_counts_as_missing(odd: float) -> None:
    random = np.random.default_rng(6)
    (before, who), (now, of_now) = of_users(random, 400), of_users(random, 400)
    now[::5, 3] = odd
    scored = with_domain_scores(rows(before, who), rows(now, of_now, 30), ["text"], "user", 0)
    assert (np.flatnonzero(scored[1].columns["text"].isna()) == np.arange(0, 400, 5)).all()
    assert scored[0].columns["text"].notna().all()


@pytest.mark.parametrize("part", others_in_ci([0.2, 1.0]))
def test_lists_of_another_length_are_of_another_encoder(part: float) -> None:
    random = np.random.default_rng(7)
    (before, who), (now, of_now) = of_users(random, 400), of_users(random, 400)
    reference, current = rows(before, who), rows(now, of_now, 30)
    count = int(part * 400)
    current.columns["text"] = [list(each[:5]) if i < count else each for i, each in enumerate(current.columns["text"])]
    reference.columns.at[0, "text"] = [1.0]
    scored = with_domain_scores(reference, current, ["text"], "user", 0)
    assert (scored[1].columns["text"][:count] == 1).all()
    assert scored[1].columns["text"][count:].between(0.001, 0.999).all()
    assert scored[0].columns["text"][0] == 0
    assert p_value(reference, current) < 1e-6
