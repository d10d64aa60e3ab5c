"""Compare replayed policies: what their quality and their trainings cost, what would have been best in hindsight, and
which policy to choose, with how much certainty.

The unit of all costs is the primary metric of one week: a week with a rmse of 41 costs 41, a week with an average
precision of 0.4 costs -0.4. A training costs `price` of them, what it must gain in one week to pay for itself at once.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from training.contract.messages import Interval, Recommendation
from training.contract.retraining_spec import CostsSpec

#: Enough that the ends of a 90 % interval are known to a few percent of its length.
SAMPLES = 2000
#: Policies that train by schedule only, and the schedule (UTC). A spec must train at some time: `never` is once a year.
SCHEDULES: Mapping[str, str] = {"never": "0 3 1 1 *", "weekly": "0 3 * * 1", "monthly": "0 3 1 * *"}


def price_of(costs: CostsSpec, predictions: float) -> float | None:
    """What a training costs in units of the primary metric of one week with so many predictions, by the spec's prices;
    None when it lacks one."""
    if costs.training is None or costs.loss_per_1000_predictions is None:
        return None
    return costs.training / (costs.loss_per_1000_predictions * predictions / 1000)


def costs_of(price: float, predictions: float, costs: CostsSpec) -> CostsSpec:
    """Prices in units of the primary metric that mean the same as `price`: see `price_of`."""
    prices = {"unit": "weeks of the metric", "training": price, "loss_per_1000_predictions": 1000 / predictions}
    return costs.model_copy(update=prices)


def spec_sections(policy: str, costs: CostsSpec | None) -> dict[str, dict[str, object]]:
    """What of a model's spec makes the loop follow a policy of a backtest: section → fields.

    `costs`: the prices that were replayed, where the spec has none; only `cost_aware` needs them.
    """
    retraining: dict[str, object] = {"policy": "fixed" if policy in SCHEDULES else policy}
    if policy == "cost_aware" and costs is not None:
        retraining["costs"] = costs.model_dump(exclude_defaults=True)
    return {"retraining": retraining, "schedule": {"train": SCHEDULES.get(policy)}}


class Hindsight(NamedTuple):
    """The best trainings in hindsight: for each week the number of the model that serves, and the weeks trained in."""

    serving: list[int]
    trained: list[int]


def best_in_hindsight(losses: np.ndarray, price: float) -> Hindsight:
    """The trainings with the lowest cost when everything is known, by dynamic programming over the weeks.

    `losses` [weeks + 1, weeks]: what each model loses in each week. Model 0 serves at first; model i + 1 could be
    trained at the beginning of week i and serve from then on. NaN: there is no such model, or it is not known.
    """
    weeks = losses.shape[1]
    known = np.where(np.isnan(losses), np.inf, losses)
    cost, before = np.full(weeks + 1, np.inf), np.zeros((weeks, weeks + 1), dtype=int)
    cost[0] = 0.0
    for week in range(weeks):
        now = cost + known[:, week]
        before[week] = np.arange(weeks + 1)
        if week:  # In the first week model 0 is as new as one that would be trained then.
            best = int(np.argmin(cost))
            now[week + 1] = cost[best] + price + known[week + 1, week]
            before[week, week + 1] = best
        cost = now
    model = int(np.argmin(cost))
    serving = list[int]()
    for week in reversed(range(weeks)):
        serving.append(model)
        model = int(before[week, model])
    serving.reverse()
    return Hindsight(serving, [week for week in range(1, weeks) if serving[week] != serving[week - 1]])


def weekly_costs(values: np.ndarray, trainings: Sequence[int], sign: int, price: float) -> np.ndarray:
    """What each week costs: `values` [weeks] of the primary metric, which is better when `sign` times it is higher, and
    the price of the trainings begun in these weeks (numbers, one for each training)."""
    begun = np.bincount(np.asarray(trainings, dtype=int), minlength=len(values))
    return -sign * values + price * begun


def recommend(costs: Mapping[str, np.ndarray], confidence: float, seed: int) -> Recommendation:
    """The policy with the lowest mean of its weekly `costs` [weeks], and how sure that is.

    All policies have the same weeks, so each bootstrap sample draws the same ones for all (paired). Neighbouring weeks
    resemble each other, so blocks of n^(1/3) weeks are drawn (Künsch, The Jackknife and the Bootstrap for General
    Stationary Observations, Annals of Statistics 17, 1989). Of policies with equal cost the first is recommended.
    Raises ValueError without weeks.
    """
    names, table = list(costs), np.array(list(costs.values()))
    if not table.size:
        raise ValueError("There is no week in which all policies were measured")
    best = int(np.argmin(table.mean(axis=1)))
    means = resampled_means(table, seed)
    winners = np.bincount(np.argmin(means, axis=0), minlength=len(names)) / means.shape[1]
    more = {name: _interval(means[i] - means[best], confidence) for i, name in enumerate(names) if i != best}
    return Recommendation(
        policy=names[best],
        best_in={name: float(winners[i]) for i, name in enumerate(names)},
        costs_more=more,
        confidence=confidence,
        alike=[name for name, each in more.items() if each.low <= 0],
    )


def resampled_means(table: np.ndarray, seed: int) -> np.ndarray:
    """The means [rows, SAMPLES] of `table` [rows, weeks] over bootstrap samples of its weeks, the same for all rows."""
    weeks = table.shape[1]
    length = max(1, round(weeks ** (1 / 3)))
    blocks = -(-weeks // length)
    random = np.random.default_rng(seed)
    starts = random.integers(weeks - length + 1, size=(SAMPLES, blocks))
    drawn = (starts[:, :, np.newaxis] + np.arange(length)).reshape(SAMPLES, -1)[:, :weeks]
    return table[:, drawn].mean(axis=2)


def regret_interval(costs: np.ndarray, best: np.ndarray, confidence: float, seed: int) -> Interval:
    """By how much a week of weekly `costs` [weeks] costs more than one of `best` [weeks]."""
    return _interval(resampled_means((costs - best)[np.newaxis], seed)[0], confidence)


def _interval(values: np.ndarray, confidence: float) -> Interval:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(low=float(low), high=float(high))
