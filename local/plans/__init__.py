"""The plans of the demo, one module per model: its data, its calendar, and what changes in the data and when."""

from abc import ABC, abstractmethod
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar

import pyarrow as pa

from training.contract.base import Days
from training.contract.errors import ConfigError
from training.contract.names import did_you_mean

WEEK = timedelta(days=7)
#: The model whose plan `make demo` runs when it names none.
DEFAULT = "card_fraud"


class Plan(ABC):
    """What lands for one model: its history, and then week by week data that differ from the history."""

    source: ClassVar[str]
    model: ClassVar[str]
    #: What the events are, in the plural, for messages.
    events_name: ClassVar[str]
    #: So many days of data after the change at most, a better version must serve. None: there is no abrupt change.
    days_to_serve: ClassVar[int | None] = None

    @property
    @abstractmethod
    def history(self) -> Days:
        """The days whose events land first. The first champion learns from them."""

    @property
    @abstractmethod
    def first_labels(self) -> Days:
        """The days whose reported labels land with the history."""

    @property
    @abstractmethod
    def changed_weeks(self) -> int:
        """The most weeks that land after the history."""

    @property
    def serves_by(self) -> date | None:
        """The last day of data as of which a version may be trained that serves the changed data."""
        return None if self.days_to_serve is None else self.history.end + timedelta(days=self.days_to_serve)

    def week(self, number: int) -> Days:
        """The days of changed week `number`, from 1."""
        start = self.history.end + (number - 1) * WEEK
        return Days(start=start, end=start + WEEK)

    @abstractmethod
    def events(self, day: date) -> pa.Table:
        """The events of `day`, as they land."""

    @abstractmethod
    def land(self, landing: Path, feed: str, days: Days) -> Path:
        """Write the events of `days`, or the labels reported on them, as one partition. Returns the file."""

    @abstractmethod
    def describe(self, event: dict[str, Any], answer: dict[str, Any]) -> str:
        """An event and its prediction, as part of a sentence."""


def plan_names() -> list[str]:
    """The models that have a plan."""
    return sorted(module.name for module in iter_modules(__path__))


def plan_of(model: str) -> Plan:
    """The plan of `model`. Raises ConfigError when it has none."""
    if model not in plan_names():
        meant, problem = did_you_mean(model, plan_names()), f"There is no demo of the model {model!r}"
        raise ConfigError(problem, hint=f"{meant}Choose one of {', '.join(plan_names())}.")
    plan: Plan = import_module(f"{__name__}.{model}").Plan()
    return plan
