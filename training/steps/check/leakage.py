"""Compute the feature rows of a day again without what was not known when the day began. They must be equal.

Removed are all later events, all labels that were not yet reported, and rows older than the history that the features
step reads. When rows differ, the removals are made one by one to say which of them the SQL depends on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.adapters.feature_query import FeatureQueries
from training.contract.base import Days, midnight
from training.contract.feeds import EVENTS
from training.contract.source_spec import SourceSpec

#: Sums of float64 in a different order differ by less.
TOLERANCE = 1e-6

#: What is wrong, as the rest of a sentence, and what to do.
Found = tuple[str, str]
Relations = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Leakage:
    """Checks the query of one feature table on `feeds`: feed → rows, of which some are later than the checked days."""

    spec: SourceSpec
    table: str
    queries: FeatureQueries
    feeds: Relations

    @property
    def _entity(self) -> str:
        return self.spec.entities[self.table]

    @property
    def _is_hourly(self) -> bool:
        return self.table in self.spec.hourly_tables

    def find(self, together: pa.Table, times: Iterable[datetime]) -> Found | None:
        """Why the rows of one of `times` depend on what was not known then; None when they do not.

        `together`: the rows of a span of days, computed from all feeds. `times`: midnights, of hourly tables hours.
        Raises ConfigError and DataContractError as FeatureQueries.run does.
        """
        for time in times:
            alone = self._run(time, self._known(time, self._recent(time)))
            if differences := self._differences(_at(together, time), alone, time, "in a span of days", "alone"):
                return self._explained(time, differences)
        return None

    def _explained(self, time: datetime, differences: str) -> Found:
        """Which of the removed rows change the result of `time`."""
        alone = self._run(time, self.feeds)
        if again := self._differences(alone, self._run(time, self.feeds), time, "at first", "then"):
            fix = "Remove random(), now() and current_date; add ORDER BY if an aggregate needs it."
            return f"yields other rows when it runs again: {again}", fix
        # With all rows, and with those that the features step reads: old rows may hide what later ones change.
        for relations in (self.feeds, self._recent(time)):
            if found := self._of_the_future(time, relations):
                return found
        return self._of_the_past(time, alone) or self._of_the_span(differences)

    def _of_the_future(self, time: datetime, relations: Relations) -> Found | None:
        alone = self._run(time, relations)
        unit = "hour" if self._is_hourly else "day"
        said, fixes, example = [], [], ""
        for feed in self.feeds:
            without = self._run(time, self._known(time, relations, [feed]))
            if not (differing := self._differences(alone, without, time, "with them", "without")):
                continue
            said.append(
                f"events of the {unit} itself or later" if feed == EVENTS else f"{feed} that were not yet reported"
            )
            known = "events" if feed == EVENTS else f"{feed} reported"
            fixes.append(f"{known} before the {unit}: {self._before(feed)}")
            example = example or differing
        if not said:
            return None
        what = f"uses {' and '.join(said)} at the start of {_time_text(time)}: {example}"
        return what, f"Use only {', and only '.join(fixes)}."

    def _before(self, feed: str) -> str:
        column = self.spec.feeds[feed].time_column
        if self._is_hourly:
            return f"date_trunc('hour', {column}) < feature_timestamp"
        return f"CAST({column} AS DATE) < day"

    def _of_the_past(self, time: datetime, alone: pa.Table) -> Found | None:
        without = self._run(time, self._recent(time))
        if not (differing := self._differences(alone, without, time, "with them", "without")):
            return None
        days = self.spec.history_of(self.table)
        fix = (
            f"Raise features.tables.{self.table}.history_days to the longest window plus the label delay plus the day"
            " on which an entity leaves the window, or shorten the window."
        )
        return f"uses events or labels from more than its history_days ({days}) ago: {differing}", fix

    @staticmethod
    def _of_the_span(differences: str) -> Found:
        fix = "Use $start and $end only to select the days to yield, not in the windows."
        return f"yields different rows for one day than for several days: {differences}", fix

    def _run(self, time: datetime, relations: Relations) -> pa.Table:
        """The rows of `time`."""
        day = time.date()
        return _at(self.queries.run(self.table, Days(start=day, end=day + timedelta(days=1)), relations), time)

    def _known(self, time: datetime, relations: Relations, feeds: Iterable[str] | None = None) -> Relations:
        """`relations` without the rows of `feeds` (None: of all) from `time` on."""
        return self._filtered(relations, feeds or self.feeds, lambda times: pc.less(times, pa.scalar(time, times.type)))

    def _recent(self, time: datetime) -> Relations:
        """The rows that the features step reads."""
        first = midnight(time.date() - timedelta(days=self.spec.history_of(self.table)))
        return self._filtered(
            self.feeds, self.feeds, lambda times: pc.greater_equal(times, pa.scalar(first, times.type))
        )

    def _filtered(
        self, relations: Relations, feeds: Iterable[str], keep: Callable[[pa.ChunkedArray], Any]
    ) -> Relations:
        times = {feed: relations[feed][self.spec.feeds[feed].time_column] for feed in feeds}
        return {**relations, **{feed: relations[feed].filter(keep(times[feed])) for feed in times}}

    def _differences(self, left: pa.Table, right: pa.Table, time: datetime, *names_of_both: str) -> str:
        """The columns in which two tables of one time differ, with an example. Empty: none.

        `names_of_both`: how the message calls `left` and `right`.
        """
        names = [name for name in left.column_names if name not in (self._entity, "feature_timestamp", "day")]
        frames = [table.select([self._entity, *names]).to_pandas().set_index(self._entity) for table in (left, right)]
        frames = [frame[~frame.index.duplicated()] for frame in frames]
        index = frames[0].index.union(frames[1].index)
        one, other = (frame.reindex(index) for frame in frames)
        # A row that is missing in one of them differs in all columns, also in those that are null.
        common = index.isin(frames[0].index) & index.isin(frames[1].index)
        same = {name: common & _equal(one[name], other[name], left.schema.field(name).type) for name in names}
        differing = [name for name in names if not same[name].all()]
        if not differing:
            return ""
        entity = index[~same[differing[0]]][0]
        values = [
            f"{_value_text(one_of, entity, differing[0])} {name}"
            for one_of, name in zip(frames, names_of_both, strict=True)
        ]
        verb = "differs" if len(differing) == 1 else "differ"
        example = f"{differing[0]} of {self._entity} {entity} is {' and '.join(values)}"
        return f"{', '.join(differing)} {verb} on {_time_text(time)}; {example}"


def _at(rows: pa.Table, time: datetime) -> pa.Table:
    return rows.filter(pc.field("feature_timestamp") == time)


def _equal(left: pd.Series, right: pd.Series, kind: pa.DataType) -> np.ndarray:
    if pt.is_floating(kind) or pt.is_integer(kind) or pt.is_boolean(kind) or pt.is_decimal(kind):
        one, other = (np.asarray(each, np.float64) for each in (left, right))
        # The order of a sum changes floats only: a large integer that differs by one is another.
        tolerance = TOLERANCE if pt.is_floating(kind) else 0.0
        return np.isclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
    if pt.is_nested(kind):
        left, right = (each.map(repr, na_action="ignore") for each in (left, right))
    return ((left == right) | (left.isna() & right.isna())).to_numpy()


def _time_text(time: datetime) -> str:
    """The day of a midnight; day and hour of another time."""
    return f"{time:%Y-%m-%d %H:%M}" if time.hour else str(time.date())


def _value_text(rows: pd.DataFrame, entity: Any, feature: str) -> str:
    if entity not in rows.index:
        return "absent"
    value = rows.at[entity, feature]
    if value is None or (np.isscalar(value) and pd.isna(value)) or value is pd.NaT:
        return "null"
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return f"{value:g}" if isinstance(value, int | float | Decimal | np.number | np.bool_) else repr(value)[:100]
