"""Many observations of a Prometheus histogram at once.

prometheus_client only takes one at a time, and each costs several locks. Private parts: the histogram's `_sum`,
`_buckets` and `_upper_bounds`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any


def observe_many(histogram: Any, values: Sequence[float]) -> None:
    """As `histogram.observe(value)` for each of `values`; `histogram` has its labels."""
    histogram._sum.inc(sum(values))
    bounds = histogram._upper_bounds
    for place, number in Counter(bisect_left(bounds, value) for value in values).items():
        histogram._buckets[place].inc(number)
