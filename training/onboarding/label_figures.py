"""What the rows of a source say about one of its labels: how many, on how many days, how distributed."""

import math
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from training.contract.base import Days
from training.contract.feeds import EVENTS
from training.contract.source_spec import SourceSpec
from training.onboarding.rules import day_counts


@dataclass(frozen=True)
class LabelFigures:
    """Of a label, over all rows that have one.

    `days`: those of the events; `as_of`: the day after the newest report. `counts`: class → rows, the most frequent
    first; empty for numbers. `mean` and `std` of numbers. `entities`: column → its distinct values.
    """

    days: Days
    as_of: date
    rows: int
    counts: dict[Any, int]
    mean: float
    std: float
    entities: dict[str, int]

    @property
    def rows_a_day(self) -> float:
        return self.rows / len(self.days)

    def share(self, value: Any) -> float:
        return self.counts.get(value, 0) / self.rows

    @property
    def entropy(self) -> float:
        """The log loss of always predicting the shares of the classes."""
        return -sum(n / self.rows * math.log(n / self.rows) for n in self.counts.values() if n)


def label_figures(spec: SourceSpec, label: str, feeds: dict[str, pa.Table], most_classes: int) -> LabelFigures | None:
    """The figures of `label` in `feeds` (feed → rows with the columns of the spec); None when no row has one.

    A number of more than `most_classes` values has no `counts`.
    """
    of = spec.label(label)
    events, labelled = feeds[EVENTS], feeds[of.feed]
    values = labelled[label].drop_null()
    if not len(values) or not events.num_rows:
        return None
    days = list(day_counts(events[spec.events.time_column]))
    reported = list(day_counts(labelled[of.time_column]))
    number = not pa.types.is_string(values.type) and not pa.types.is_boolean(values.type)
    floats = values.cast(pa.float64(), safe=False) if number else None
    distinct = pc.count_distinct(values).as_py()
    counted = [] if number and distinct > most_classes else pc.value_counts(values).to_pylist()
    counts = {each["values"]: each["counts"] for each in counted}
    return LabelFigures(
        days=Days(start=days[0], end=days[-1] + timedelta(days=1)),
        as_of=reported[-1] + timedelta(days=1),
        rows=len(values),
        counts=dict(sorted(counts.items(), key=lambda item: -item[1])),
        mean=pc.mean(floats).as_py() if number else math.nan,
        std=pc.stddev(floats).as_py() if number else math.nan,
        entities={name: pc.count_distinct(events[name]).as_py() for name in set(spec.entities.values())},
    )
