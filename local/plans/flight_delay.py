"""The demo of flight_delay: flights of 2013, week by week, through a change of the season."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa

from local import plans
from local.flights import feed_rows, land_feed, read_flights
from training.contract.base import Days


@dataclass(frozen=True)
class Plan(plans.Plan):
    """The summer of 2013 until 9 September, then the autumn: the weather changes, and the mean delay falls from 11
    minutes to −2.

    102 days are needed for a first training: the window of 84 days, the holdout of 14, and twice the label delay.
    """

    source: ClassVar[str] = "flights"
    model: ClassVar[str] = "flight_delay"
    events_name: ClassVar[str] = "flights"
    start: date = date(2013, 5, 28)
    history_weeks: int = 15
    weeks: int = 6

    @property
    def history(self) -> Days:
        return Days(start=self.start, end=self.start + self.history_weeks * plans.WEEK)

    @property
    def first_labels(self) -> Days:
        return self.history

    @property
    def changed_weeks(self) -> int:
        return self.weeks

    def events(self, day: date) -> pa.Table:
        return feed_rows(self._flights, "events", Days(start=day, end=date.fromordinal(day.toordinal() + 1)))

    def land(self, landing: Path, feed: str, days: Days) -> Path:
        return land_feed(self._flights, landing, self.source, feed, days)

    def describe(self, event: dict[str, Any], answer: dict[str, Any]) -> str:
        return f"flight {event['flight_id']} is predicted to arrive {answer['value']:.0f} minutes late"

    @cached_property
    def _flights(self) -> pd.DataFrame:
        return read_flights()
