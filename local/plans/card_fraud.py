"""The demo of card_fraud: generated payments, from which a new pattern of fraud and higher amounts do not go away."""

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from local import plans
from local.generator import LABEL_DELAY, Change, Generator, land
from training.contract.base import Days


@dataclass(frozen=True)
class Plan(plans.Plan):
    """Eight weeks without a change, then a new pattern of fraud and higher amounts, which stay.

    Labels are a week late. So those of the first changed week are known after the second: they show that the champion
    has degraded, and since which day. A training with the short holdout of `training.after_change` then learns from the
    days since (ADR 3). With the usual gap and holdout the changed days would reach its training window two weeks later.
    The other weeks are a reserve.
    """

    source: ClassVar[str] = "card_payments"
    model: ClassVar[str] = "card_fraud"
    events_name: ClassVar[str] = "payments"
    days_to_serve: ClassVar[int | None] = LABEL_DELAY.days + 10
    seed: int = 7
    customers: int = 1000
    terminals: int = 2000
    start: date = date(2026, 1, 5)
    history_weeks: int = 8
    weeks: int = 6
    changes: tuple[tuple[str, float], ...] = field(default=(("new_fraud", 0.004), ("amount_inflation", 1.6)))

    @property
    def history(self) -> Days:
        return Days(start=self.start, end=self.start + self.history_weeks * plans.WEEK)

    @property
    def first_labels(self) -> Days:
        return Days(start=self.start + LABEL_DELAY, end=self.history.end)

    @property
    def changed_weeks(self) -> int:
        return self.weeks

    def events(self, day: date) -> pa.Table:
        return self.generator.events(day)

    def land(self, landing: Path, feed: str, days: Days) -> Path:
        return land(self.generator, landing, self.source, feed, days)

    def describe(self, event: dict[str, Any], answer: dict[str, Any]) -> str:
        return f"a payment of {event['amount']} scores {answer['score']:.4f}"

    @cached_property
    def generator(self) -> Generator:
        changes = [
            Change.model_validate({"kind": k, "start": self.history.end, "strength": s}) for k, s in self.changes
        ]
        return Generator(seed=self.seed, customers=self.customers, terminals=self.terminals, changes=changes)
