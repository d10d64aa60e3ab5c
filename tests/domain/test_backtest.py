"""Costs, the best trainings in hindsight, and the recommendation, on numbers that a person can check."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml

from training.contract.model_spec import MODELS_DIR, ModelSpec, load_model_spec
from training.contract.retraining_spec import CostsSpec
from training.domain import replay
from training.domain.backtest import (
    best_in_hindsight,
    costs_of,
    price_of,
    recommend,
    regret_interval,
    resampled_means,
    spec_sections,
    weekly_costs,
)

NAN = np.nan


def _cost(losses: np.ndarray, trained: tuple[int, ...], price: float) -> float:
    model, total = 0, price * len(trained)
    for week in range(losses.shape[1]):
        model = week + 1 if week in trained else model
        total += losses[model, week]
    return total


@pytest.mark.parametrize("price", [0.0, 0.3, 2.0, 100.0])
def test_no_other_choice_of_trainings_costs_less(price: float) -> None:
    random, weeks = np.random.default_rng(3), 7
    losses = random.exponential(size=(weeks + 1, weeks))
    found = best_in_hindsight(losses, price)
    every = [some for n in range(weeks) for some in itertools.combinations(range(1, weeks), n)]
    assert _cost(losses, tuple(found.trained), price) == pytest.approx(
        min(_cost(losses, some, price) for some in every)
    )
    served = [losses[model, week] for week, model in enumerate(found.serving)]
    assert sum(served) + price * len(found.trained) == pytest.approx(_cost(losses, tuple(found.trained), price))


def test_a_training_that_never_pays_for_itself_is_not_made() -> None:
    losses = np.ones((5, 4))
    losses[2, 1:] = 0.5
    assert best_in_hindsight(losses, 1.4).trained == [1]
    assert best_in_hindsight(losses, 1.6).trained == []


def test_a_training_that_failed_is_never_chosen() -> None:
    losses = np.ones((4, 3))
    losses[2] = NAN
    losses[3, 2:] = 0.0
    assert best_in_hindsight(losses, 0.1).trained == [2]


def test_what_a_week_costs() -> None:
    assert weekly_costs(np.array([40.0, 50.0]), [1, 1], -1, 2.0).tolist() == [40.0, 54.0]
    assert weekly_costs(np.array([0.4, 0.5]), [0], 1, 0.1) == pytest.approx([-0.3, -0.5])


def test_the_price_follows_from_the_costs_of_the_spec_and_back() -> None:
    """A training for 300, and 1,000 predictions that lose 2 for each unit of the metric: 50,000 in a week lose 100."""
    costs = CostsSpec(training=300.0, loss_per_1000_predictions=2.0)
    assert price_of(costs, 50_000) == pytest.approx(3.0)
    assert price_of(costs_of(3.0, 50_000, costs), 50_000) == pytest.approx(3.0)
    assert price_of(CostsSpec(training=300.0), 50_000) is None


@pytest.mark.parametrize("predictions", [0.02, 1e12])
@pytest.mark.parametrize(("training", "loss"), [(1e12, 1e-12), (5e-324, 1e12), (0.0, 1e-12)])
def test_the_price_is_a_finite_number_whatever_the_costs_of_the_spec(
    training: float, loss: float, predictions: float
) -> None:
    price = price_of(CostsSpec(training=training, loss_per_1000_predictions=loss), predictions)
    assert price is not None
    assert 0 <= price < np.inf
    assert 0 < costs_of(price, predictions, CostsSpec()).loss_per_1000_predictions < np.inf


def test_the_cheapest_policy_is_recommended_and_those_that_may_be_as_cheap_are_named() -> None:
    random = np.random.default_rng(0)
    world = random.normal(50, 10, 26)
    costs = {
        "never": world + 3 + random.normal(size=26),
        "weekly": world + random.normal(size=26),
        "drift": world - 0.02 + random.normal(size=26),
    }
    found = recommend(costs, 0.9, 1)
    cheapest = min(costs, key=lambda name: costs[name].mean())
    other = {"weekly": "drift", "drift": "weekly"}[cheapest]
    assert (found.policy, found.alike) == (cheapest, [other])
    assert sum(found.best_in.values()) == pytest.approx(1)
    assert found.best_in["never"] < 0.01
    # The weeks differ by ten, the policies within a week by one: only a paired comparison can tell.
    assert 2 < found.costs_more["never"].low < 3.2 < found.costs_more["never"].high < 4.5


def test_a_policy_alone_is_not_compared() -> None:
    said = str(recommend({"weekly": np.arange(26.0)}, 0.9, 1))
    assert said == "weekly is the only policy: there is none to compare it with."


def test_without_weeks_nothing_is_recommended() -> None:
    with pytest.raises(ValueError, match="no week"):
        recommend({"never": np.array([])}, 0.9, 1)


def test_the_interval_of_the_regret_holds_the_truth_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(5), 0
    for seed in range(200):
        costs = 1 + random.normal(size=40)
        found = regret_interval(costs, np.zeros(40), 0.9, seed)
        held += found.low <= 1 <= found.high
    assert 160 <= held <= 192


def test_blocks_of_weeks_are_drawn_because_neighbours_resemble_each_other() -> None:
    """The means of a slow wave vary more than if its weeks were drawn one by one."""
    wave = np.sin(np.arange(64) / 5)
    shuffled = np.random.default_rng(1).permutation(wave)
    assert resampled_means(wave[np.newaxis], 2).std() > 1.4 * resampled_means(shuffled[np.newaxis], 2).std()


@pytest.mark.parametrize("policy", replay.POLICIES)
def test_the_lines_of_a_recommendation_make_a_spec_that_follows_it(policy: str, tmp_path: Path) -> None:
    costs = costs_of(0.2, 14_000, CostsSpec())
    spec = _with(spec_sections(policy, costs), tmp_path)
    looks = replay.POLICIES[policy].looks
    assert spec.retraining.policy == (policy if looks else "fixed")
    assert (spec.schedule.train is None) == looks
    if policy == "cost_aware":
        assert price_of(spec.retraining.costs, 14_000) == pytest.approx(0.2)


def _with(sections: dict[str, dict[str, object]], folder: Path) -> ModelSpec:
    """The spec of card_fraud with the lines, as a person would write them."""
    fields = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
    for section, lines in yaml.safe_load(yaml.safe_dump(sections)).items():
        fields[section] |= lines
    (folder / "card_fraud.yaml").write_text(yaml.safe_dump(fields))
    return load_model_spec("card_fraud", folder)
