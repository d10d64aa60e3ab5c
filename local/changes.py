"""The changes that the generator can apply to payments."""

import re
from datetime import date
from typing import Literal, get_args

from pydantic import Field

from training.contract.base import Frozen

ChangeKind = Literal[
    "new_fraud", "amount_inflation", "population_shift", "zero_amounts", "stuck_terminals", "moved_frauds"
]
_STRENGTHS: dict[ChangeKind, float] = {
    "new_fraud": 0.002,
    "amount_inflation": 1.5,
    "population_shift": 0.3,
    "zero_amounts": 0.2,
    "stuck_terminals": 0.2,
    "moved_frauds": 0.5,
}


class Change(Frozen):
    """A change in the data, from day `start` to the day before `end` (None: it stays).

    It is there at once, or grows by equal parts for `over_days` days, the first part on the first day. `strength`
    depends on the kind:

    - new_fraud: customers who fall victim, per customer and day; for a week each makes about three small payments
      a night at terminals anywhere, all fraudulent (default 0.002);
    - amount_inflation: the factor on every amount (1.5);
    - population_shift: new customers as a share of the old ones; they pay twice as often, twice as much, in the
      evening (0.3);
    - zero_amounts, stuck_terminals: the share of terminals that silently report the amount 0, or the id of one
      terminal (0.2);
    - moved_frauds: the share of frauds that no longer are frauds; as many other payments, chosen at random, are frauds
      instead (0.5). The payments themselves do not change.
    """

    kind: ChangeKind
    start: date
    end: date | None = None
    strength: float | None = Field(None, gt=0)
    over_days: int = Field(1, ge=1)

    @property
    def value(self) -> float:
        """The whole strength."""
        return _STRENGTHS[self.kind] if self.strength is None else self.strength

    def grown(self, day: date) -> float:
        """The part of the change that has happened on `day`, a day on which it is active: at most 1."""
        return min(1.0, ((day - self.start).days + 1) / self.over_days)

    def on(self, day: date) -> float:
        """The strength on `day`."""
        if (part := self.grown(day)) == 1:
            return self.value
        unchanged = 1.0 if self.kind == "amount_inflation" else 0.0
        return unchanged + (self.value - unchanged) * part

    def active(self, day: date) -> bool:
        return self.start <= day and (self.end is None or day < self.end)

    @classmethod
    def parse(cls, text: str) -> "Change":
        """From `kind@start[..end][=strength][/days]`; `/56` grows over 56 days. Raises ValueError for anything else."""
        match = re.fullmatch(r"(\w+)@([\d-]+)(?:\.\.([\d-]+))?(?:=([\d.]+))?(?:/(\d+))?", text)
        if match is None or match[1] not in get_args(ChangeKind):
            kinds = ", ".join(get_args(ChangeKind))
            raise ValueError(f"{text!r} is not kind@start[..end][=strength][/days] with a kind of {kinds}")
        fields = zip(("kind", "start", "end", "strength", "over_days"), match.groups(), strict=True)
        return cls.model_validate({name: value for name, value in fields if value is not None})
