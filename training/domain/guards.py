"""The guards of a rollout: they compare the signals of a new version with the limits of its spec.

Counts are tested against chance: a guard trips when a version within the limit would almost never have a count this
high. So five failures in five requests trip a guard at once, and one failure in five hundred does not. When a stage
ends with too few requests for the test, the observed shares of failed requests and of NaN decide.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, chi2

from training.contract.names import shown
from training.contract.predictions import ALERT, raise_alerts
from training.contract.rollout_spec import GuardSpec
from training.contract.signals import TIME_BUCKETS, PairSignals, Signals, VersionSignals

#: Ten groups of scores are usual for the population stability index.
SCORE_GROUPS = 10
#: A version that fails more than this share of a stage's requests is not promoted, even without an error-rate guard.
MAXIMUM_ERROR_SHARE = 0.5


@dataclass(frozen=True)
class Finding:
    """What one guard found. `value` and `limit` have the unit of the guard: a share, ms, or an index."""

    guard: str
    value: float
    limit: float
    tripped: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'TRIPPED' if self.tripped else 'kept'}: {self.sentence}"


def beyond_chance(count: int, total: int, limit: float, confidence: float) -> bool:
    """Whether `count` of `total` is significantly more than the share `limit`: the exact one-sided binomial test.

    It gives the same answer as comparing `limit` with the lower end of the Clopper-Pearson interval (Biometrika 26,
    1934).
    """
    if count <= limit * total:
        return False
    if limit <= 0:
        return True  # Limit 0: any occurrence trips the guard.
    return bool(binomtest(count, total, limit, alternative="greater").pvalue < 1 - confidence)


def p99(times: Sequence[int]) -> float:
    """The 99th percentile in ms, as the upper end of its bucket; 0 when no time was counted."""
    counts = np.cumsum(times)
    if not counts[-1]:
        return 0.0
    bucket = int(np.searchsorted(counts, 0.99 * counts[-1]))
    return 1000 * TIME_BUCKETS[min(bucket, len(TIME_BUCKETS) - 1)]


def population_stability(
    expected: Mapping[str, int], found: Mapping[str, int], ordered: bool = True
) -> tuple[float, int]:
    """Population stability index Σ (fᵢ − eᵢ) ln(fᵢ / eᵢ) of two histograms, and the number of groups that it compares.

    The groups of `ordered` histograms have numbers as names. Neighbours are merged into about ten groups that hold
    equally many rows of `expected`. An empty group counts as half a row.
    """
    names = sorted(expected.keys() | found.keys(), key=float) if ordered else list(expected.keys() | found.keys())
    e, f = (np.array([each.get(name, 0) for name in names], float) for each in (expected, found))
    if not (e.sum() and f.sum()):
        return 0.0, 1
    if ordered:
        # The group of a bucket is that of the bucket's middle row.
        middle = (np.cumsum(e) - e / 2) / e.sum()
        group = np.minimum((middle * SCORE_GROUPS).astype(int), SCORE_GROUPS - 1)
        e, f = (np.bincount(group, weights=each, minlength=SCORE_GROUPS) for each in (e, f))
    used = (e > 0) | (f > 0)
    e, f = np.maximum(e[used], 0.5), np.maximum(f[used], 0.5)
    e, f = e / e.sum(), f / f.sum()
    return float(((f - e) * np.log(f / e)).sum()), int(used.sum())


def examine(
    signals: Signals,
    guards: GuardSpec,
    alert_rate: float,
    final: bool = False,
    silent: bool = False,
    ordered: bool = True,
) -> list[Finding]:
    """Apply the guards to the signals of a stage, summed over the replicas.

    In a full stage the new version is the champion, so there is no other version to compare it with. `final`: the
    stage is over, so the guards no longer wait for more requests. `silent`: the stage ends with fewer requests than
    its plan asked for. `alert_rate`: the share of events that the decision threshold is set to alert on.
    `ordered`: the groups of outputs are ranges in ascending order.
    """
    full = signals.traffic.mode == "full"
    new = signals.of(signals.champion if full else signals.challenger)
    old = VersionSignals() if full else signals.of(signals.champion)
    few = silent or (final and new.asked < guards.minimum_requests)
    found = [*_faults(new, guards, final, few)]
    found += _latency(new, old, guards, final, shadow=signals.traffic.mode == "shadow")
    if not full and (final or signals.pair.rows >= guards.minimum_requests):
        found += _comparison(signals, guards, alert_rate, ordered)
    return found


def _faults(new: VersionSignals, guards: GuardSpec, final: bool, few: bool) -> Iterator[Finding]:
    """`final`: the stage is over. `few`: no more requests will come and there are too few for a test, so the observed
    share decides."""
    errors_limit = guards.maximum_error_rate
    if final and errors_limit is None:
        errors_limit = MAXIMUM_ERROR_SHARE
    counted = (
        ("error_rate", "error rate", new.errors, new.asked, "requests", errors_limit),
        ("nan_share", "share of NaN", new.nans, new.scored, "scores", guards.maximum_nan_share),
    )
    for guard, name, count, total, of, limit in counted:
        if limit is not None and total:
            sentence = f"{name} {count / total:.2%} ({count} of {total} {of}), at most {limit:.2%}"
            tripped = count > limit * total if few else beyond_chance(count, total, limit, guards.confidence)
            yield Finding(guard, count / total, limit, tripped, sentence)


def _latency(
    new: VersionSignals, old: VersionSignals, guards: GuardSpec, final: bool, shadow: bool
) -> Iterator[Finding]:
    times, before = (new.scoring_times, old.scoring_times) if shadow else (new.times, old.times)
    what, count = "p99 of scoring" if shadow else "p99 latency", sum(times)
    if not count or (not final and count < guards.minimum_requests):
        return
    limits = [] if guards.maximum_p99_ms is None else [(guards.maximum_p99_ms, f"{guards.maximum_p99_ms:g} ms")]
    if guards.maximum_p99_ratio is not None and sum(before) >= guards.minimum_requests:
        champion = p99(before)
        limit = max(champion * guards.maximum_p99_ratio, champion + guards.p99_slack_ms)
        limits.append((limit, f"{limit:.1f} ms for the champion's {champion:.1f} ms"))
    if not limits:
        return
    limit, limit_text = min(limits)
    # The p99 is above the limit when more than 1% of the calls are.
    starts = 1000 * np.array([0.0, *TIME_BUCKETS])
    slower = int(np.asarray(times)[starts >= limit].sum())
    tripped = beyond_chance(slower, count, 0.01, guards.confidence)
    yield Finding(
        "p99", p99(times), limit, tripped, f"{what} {p99(times):.1f} ms over {count} calls, at most {limit_text}"
    )


def _comparison(signals: Signals, guards: GuardSpec, alert_rate: float, ordered: bool) -> Iterator[Finding]:
    pair, on = signals.pair, f"of {signals.pair.rows} requests that both scored"
    if not pair.rows:
        return
    if guards.maximum_score_shift is not None:
        index, groups = population_stability(pair.champion_groups, pair.challenger_groups, ordered)
        # Without a shift, PSI · n / 2 of two samples of n rows is about χ² with one degree of freedom less than groups
        # (Yurdakul, Statistical Properties of Population Stability Index, 2018).
        noise = float(chi2.ppf(guards.confidence, groups - 1)) * 2 / pair.rows if groups > 1 else 0.0
        limit = guards.maximum_score_shift
        sentence = f"score shift (PSI) {index:.3f} on the scores {on}, at most {limit:g} (and {noise:.3f} by chance)"
        yield Finding("score_shift", index, limit, index > limit + noise, sentence)
    yield from _alert_rate(pair, guards, alert_rate, on)
    if guards.minimum_agreement is not None and pair.comparable:
        differ = pair.comparable - pair.agreed
        agreement, limit = pair.agreed / pair.comparable, guards.minimum_agreement
        tripped = beyond_chance(differ, pair.comparable, 1 - limit, guards.confidence)
        sentence = f"agreement {agreement:.2%} ({differ} {on} got other predictions), at least {limit:.2%}"
        yield Finding("agreement", agreement, limit, tripped, sentence)


def _alert_rate(pair: PairSignals, guards: GuardSpec, alert_rate: float, on: str) -> Iterator[Finding]:
    """Nothing where the task raises no alerts."""
    if not raise_alerts(pair.champion_decisions, pair.challenger_decisions):
        return
    new, old = (each.get(ALERT, 0) for each in (pair.challenger_decisions, pair.champion_decisions))
    rates = f"alert rate {new / pair.rows:.2%} ({new} {on}), the champion's {old / pair.rows:.2%}"
    if guards.maximum_alert_ratio is not None:
        # A ratio to none is nothing: a champion without an alert counts as one with a single one.
        limit = guards.maximum_alert_ratio * max(old / pair.rows, alert_rate or 1 / pair.rows)
        tripped = beyond_chance(new, pair.rows, limit, guards.confidence)
        yield Finding("alert_rate", new / pair.rows, limit, tripped, f"{rates}, at most {limit:.2%}")
    if guards.minimum_alert_ratio is not None:
        limit = guards.minimum_alert_ratio * old / pair.rows
        tripped = beyond_chance(pair.rows - new, pair.rows, 1 - limit, guards.confidence)
        yield Finding("alert_rate", new / pair.rows, limit, tripped, f"{rates}, at least {limit:.2%}")


def quality(
    leads: np.ndarray, metric: str, rows: int, counts: Mapping[str, int], guards: GuardSpec, drawn: str = ""
) -> Finding:
    """The finding for `leads`: by how much the version is better than the champion in `metric`, one per bootstrap
    sample of the same rows. `counts`: class → its rows.

    It trips when the upper end of the interval, at the spec's confidence, is below the allowed drop. Without samples
    (too few entities and hours to draw from) it cannot trip. `drawn` describes what the bootstrap drew.
    """
    limit = guards.maximum_quality_drop or 0.0
    on = ", ".join([f"on {rows} labelled requests", *(f"{count} {shown(name)}" for name, count in counts.items())])
    on += f"; may get worse by {limit:g}"
    on += f"; the bootstrap draws {drawn}" if drawn else ""
    if not len(leads):
        return Finding("quality", 0.0, -limit, False, f"the difference in {metric} cannot be tested {on}")
    most, middle = float(np.quantile(leads, guards.confidence)), float(np.median(leads))
    sentence = f"{metric} better by {middle:+.4f} than the champion (at most {most:+.4f}) {on}"
    return Finding("quality", middle, -limit, most < -limit, sentence)
