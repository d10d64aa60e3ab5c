"""The feeds of a source spec: their columns, types and rules."""

import re
from typing import Annotated

from pydantic import Field, model_validator

from training.contract.base import LONGEST_DAYS, DayCount, Spec
from training.contract.columns import Column
from training.contract.problems import raise_contradictions

Share = Annotated[float, Field(ge=0, le=1)]

#: Column names are used in SQL, Delta, Parquet, Feast and JSON. All of these take letters, digits and underscores
#: without quotes. Names that begin with an underscore are reserved for Perennial.
COLUMN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
#: The feed that every source has.
EVENTS = "events"
#: The lake's own column of a feed.
PARTITION = "partition"


class RowCount(Spec):
    """Rules for the number of rows of a day. The ratios are relative to the median of earlier days."""

    minimum: int = Field(1, ge=0)
    history_days: int = Field(28, ge=1, le=3660)
    minimum_ratio: float = Field(0.3, ge=0)
    maximum_ratio: float = Field(3.0, gt=0)

    @model_validator(mode="after")
    def _a_median_day_passes(self) -> "RowCount":
        found, refused = [], "a day with as many rows as the median would be refused"
        if self.minimum_ratio > self.maximum_ratio:
            what = f"is {self.minimum_ratio:g}, above maximum_ratio {self.maximum_ratio:g}, so no day could pass"
            found.append(("minimum_ratio", what, "Swap or correct the two ratios."))
        elif self.minimum_ratio > 1:
            what = f"is {self.minimum_ratio:g}: {refused}"
            found.append(("minimum_ratio", what, "Write a ratio of at most 1; 0 switches the rule off."))
        elif self.maximum_ratio < 1:
            what = f"is {self.maximum_ratio:g}: {refused}"
            found.append(("maximum_ratio", what, "Write a ratio of at least 1; a large one switches the rule off."))
        raise_contradictions(found)
        return self


class FeedSpec(Spec):
    """One stream of landed files. `time_column` decides to which day a row belongs."""

    columns: dict[str, Column] = Field(min_length=1)
    """Names consist of letters, digits and underscores, and begin with a letter. `partition` is reserved."""
    time_column: str
    id_column: str
    """The column that identifies an event. It has the same name in all feeds."""
    row_count: RowCount = RowCount()
    maximum_quarantined: Share = 0.05
    """The largest share of a partition's rows that may break a rule. With more, the partition is refused."""
    slack_days: int = Field(0, ge=0, le=LONGEST_DAYS)
    """Rows may be at most this many days outside the days in the partition's name."""
    maximum_gap_days: DayCount = 7
    """The most days between a day with rows and the last day before it with rows, in the same or in another partition
    of the feed. A partition further ahead, such as one with dates of a wrong clock, is refused, because it would move
    online features and the drift window into the future. The first partition may have any days."""

    @model_validator(mode="after")
    def _keys_are_columns(self) -> "FeedSpec":
        found = _name_mistakes(list(self.columns))
        if self.id_column not in self.columns:
            what = f"names {self.id_column!r}, which is not one of the columns {sorted(self.columns)}"
            found.append(("id_column", what, "Name one of the columns."))
        column = self.columns.get(self.time_column)
        if column is None or column.type != "timestamp":
            what = f"{self.time_column!r} must be a column of type timestamp"
            found.append(("time_column", what, "Name a column of type timestamp, or change its type."))
        elif column.nullable:
            what = f"{self.time_column!r} may be null, but every row needs a time"
            found.append(("time_column", what, "Remove `nullable: true` from the column."))
        raise_contradictions(found)
        return self


def _name_mistakes(names: list[str]) -> list[tuple[str, str, str]]:
    found, folded = [], dict[str, str]()
    for name in names:
        place = f"columns.{name}"
        if not COLUMN_NAME.fullmatch(name):
            what = "is not a valid name: use at most 63 letters, digits and underscores, beginning with a letter"
            found.append((place, what, "Rename the column, here and in the files that land."))
        elif name.lower() == PARTITION:
            what = "has a reserved name, which the lake uses for the partition of each row"
            found.append((place, what, "Rename the column, here and in the files that land."))
        elif name.lower() in folded:
            what = f"differs from {folded[name.lower()]!r} only in upper and lower case, which SQL ignores"
            found.append((place, what, "Rename one of the two, here and in the files that land."))
        folded[name.lower()] = name
    return found
