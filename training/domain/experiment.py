"""The final comparison of an A/B stage, in which each of two versions answered its own group of keys."""

import numpy as np
from scipy.stats import binomtest

from training.contract.base import Frozen
from training.contract.model_spec import Metric
from training.contract.predictions import ALERT, raise_alerts
from training.contract.signals import VersionSignals
from training.domain.task_kind import Scored


class Difference(Frozen):
    """Challenger minus champion: the estimate and a two-sided interval at `confidence`."""

    measure: str
    champion: float
    challenger: float
    low: float
    high: float
    confidence: float
    champion_rows: int
    challenger_rows: int
    drawn: str = ""
    """What the bootstrap drew, unless it drew whole entities."""

    @property
    def beyond_chance(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        text = f"{self.measure}: champion {self.champion:.4f} ({self.champion_rows} requests), challenger "
        text += f"{self.challenger:.4f} ({self.challenger_rows}), difference {self.challenger - self.champion:+.4f}"
        conclusion = "beyond chance" if self.beyond_chance else "within chance"
        text += f" [{self.low:+.4f}, {self.high:+.4f}] at {self.confidence:.0%}: {conclusion}"
        return f"{text}; the bootstrap draws {self.drawn}" if self.drawn else text


def alert_rates(champion: VersionSignals, challenger: VersionSignals, confidence: float) -> Difference | None:
    """The difference of the two alert rates with Newcombe's hybrid score interval. None when a version has no answers,
    or when the task raises no alerts.

    R. G. Newcombe, Interval estimation for the difference between independent proportions, Statist. Med. 17 (1998),
    method 10. It combines the Wilson intervals of the two rates.
    """
    both = (champion, challenger)
    if not all(each.answered and raise_alerts(each.decisions) for each in both):
        return None
    alerts = [each.decisions.get(ALERT, 0) for each in both]
    old, new = (count / each.answered for count, each in zip(alerts, both, strict=True))
    (old_low, old_high), (new_low, new_high) = (
        binomtest(count, each.answered).proportion_ci(confidence, "wilson")
        for count, each in zip(alerts, both, strict=True)
    )
    return Difference(
        measure="alert rate",
        champion=old,
        challenger=new,
        low=new - old - float(np.hypot(new - new_low, old_high - old)),
        high=new - old + float(np.hypot(new_high - new, old - old_low)),
        confidence=confidence,
        champion_rows=champion.answered,
        challenger_rows=challenger.answered,
    )


def qualities(
    champion: Scored, challenger: Scored, metric: Metric, confidence: float, samples: int, seed: int
) -> Difference:
    """`metric` of each version on the labelled requests that it answered.

    The interval is a bootstrap percentile interval over `samples` samples. The groups share no key, so the clusters of
    each are drawn separately (domain/resampling.py). When a group has too few clusters, the interval is infinite.
    """
    random = np.random.default_rng(seed)
    groups = (champion, challenger)
    clusters = [group.truth.clusters for group in groups]
    drawn = np.full((samples, 2), np.nan)
    for i in range(samples if all(each.count for each in clusters) else 0):
        for j, group in enumerate(groups):
            drawn[i, j] = group.value(metric, group.truth.clusters.draw(random))
    differences = drawn[:, 1] - drawn[:, 0]
    differences = differences[np.isfinite(differences)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, (tail, 1 - tail)) if len(differences) else (-np.inf, np.inf)
    return Difference(
        measure=metric,
        champion=champion.value(metric),
        challenger=challenger.value(metric),
        low=float(low),
        high=float(high),
        confidence=confidence,
        champion_rows=len(champion.truth.labels),
        challenger_rows=len(challenger.truth.labels),
        drawn="; ".join(dict.fromkeys(each.described for each in clusters if each.by_time)),
    )
