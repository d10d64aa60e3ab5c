"""The numbers of the demo's scenario: the seed, the calendar, what changes in the data and when."""

from dataclasses import dataclass, field
from datetime import date, timedelta

from local.generator import Change, Generator
from training.contract.base import Days

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Plan:
    """Eight weeks without a change, then a new pattern of fraud and higher amounts, which stay.

    Labels are a week late, the holdout is the newest labelled week, and a gap of a week lies before it (ADR 3). So the
    changed days reach a training window of 14 days four weeks after the change; the weeks after that are a reserve.
    """

    source: str = "card_payments"
    model: str = "card_fraud"
    seed: int = 7
    customers: int = 1000
    terminals: int = 2000
    start: date = date(2026, 1, 5)
    history_weeks: int = 8
    drifted_weeks: int = 6
    changes: tuple[tuple[str, float], ...] = field(default=(("new_fraud", 0.004), ("amount_inflation", 1.6)))

    @property
    def history(self) -> Days:
        return Days(start=self.start, end=self.start + self.history_weeks * WEEK)

    @property
    def drift_start(self) -> date:
        return self.history.end

    def week(self, number: int) -> Days:
        """The days of drifted week `number`, from 1."""
        start = self.drift_start + (number - 1) * WEEK
        return Days(start=start, end=start + WEEK)

    def generator(self) -> Generator:
        changes = [
            Change.model_validate({"kind": k, "start": self.drift_start, "strength": s}) for k, s in self.changes
        ]
        return Generator(seed=self.seed, customers=self.customers, terminals=self.terminals, changes=changes)
