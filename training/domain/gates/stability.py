"""Whether the gain over the champion is more than what another seed changes.

The challenger was fitted again with other seeds. A gain that is smaller than the standard deviation of the primary
metric over the seeds may come from a lucky one. Source: Bouthillier et al., Accounting for Variance in Machine Learning
Benchmarks, MLSys 2021. Seeds are one source of variance; the bootstrap of the gate `better` covers that of the rows.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from training.contract.messages import Stability
from training.contract.names import Metric
from training.domain.gates import Gate


def stability(
    metric: Metric, own_seed: int, values: Mapping[int, float], failed: Mapping[int, str], gain: float | None
) -> Stability:
    """`values`: seed → the metric, with that of the challenger's own seed. `gain`: its lead over the champion."""
    numbers = np.array(list(values.values()), np.float64)
    enough = not failed and len(numbers) > 1 and bool(np.isfinite(numbers).all())
    return Stability(
        metric=metric,
        own_seed=own_seed,
        values={seed: value for seed, value in values.items() if np.isfinite(value)},
        failed=dict(failed),
        deviation=float(numbers.std(ddof=1)) if enough else None,
        gain=None if gain is None or not np.isfinite(gain) else gain,
    )


def gates(found: Stability, has_champion: bool) -> Iterator[Gate]:
    shown = ", ".join(f"{value:.4f}" for value in found.values.values())
    if found.deviation is None:
        why = "; ".join(f"the fit with seed {seed} failed: {each}" for seed, each in found.failed.items())
        why = why or "there are too few values"
        yield Gate("stability", False, f"the standard deviation of {found.metric} over seeds is not known: {why}")
        return
    deviates = f"the standard deviation of {found.metric} over {len(found.values)} seeds is {found.deviation:.4f}"
    deviates += f" ({shown})"
    if len(set(found.values.values())) == 1:
        deviates += ", because every seed gives the same metric"
    if not has_champion:
        yield Gate("stability", True, f"{deviates}; there is no champion yet, so it limits nothing")
    elif found.gain is None:
        yield Gate("stability", False, f"{deviates}; the gain over the champion is not known")
    else:
        sentence = f"the gain in {found.metric} over the champion, {found.gain:+.4f}, must be more than a seed changes"
        yield Gate("stability", found.gain > found.deviation, f"{sentence}: {deviates}")
