"""The changes that the generator can apply to payments."""

import re
from datetime import date
from typing import Literal, get_args

from pydantic import Field

from training.contract.base import Frozen

ChangeKind = Literal["new_fraud", "amount_inflation", "population_shift", "zero_amounts", "stuck_terminals"]
_STRENGTHS: dict[ChangeKind, float] = {
    "new_fraud": 0.002,
    "amount_inflation": 1.5,
    "population_shift": 0.3,
    "zero_amounts": 0.2,
    "stuck_terminals": 0.2,
}


class Change(Frozen):
    """A change in the data, from day `start` to the day before `end` (None: it stays). `strength` depends on the kind:

    - new_fraud: customers who fall victim, per customer and day; for a week each makes about three small payments
      a night at terminals anywhere, all fraudulent (default 0.002);
    - amount_inflation: the factor on every amount (1.5);
    - population_shift: new customers as a share of the old ones; they pay twice as often, twice as much, in the
      evening (0.3);
    - zero_amounts, stuck_terminals: the share of terminals that silently report the amount 0, or the id of one
      terminal (0.2).
    """

    kind: ChangeKind
    start: date
    end: date | None = None
    strength: float | None = Field(None, gt=0)

    @property
    def value(self) -> float:
        return _STRENGTHS[self.kind] if self.strength is None else self.strength

    def active(self, day: date) -> bool:
        return self.start <= day and (self.end is None or day < self.end)

    @classmethod
    def parse(cls, text: str) -> "Change":
        """From `kind@start[..end][=strength]`. Raises ValueError for anything else."""
        match = re.fullmatch(r"(\w+)@([\d-]+)(?:\.\.([\d-]+))?(?:=([\d.]+))?", text)
        if match is None or match[1] not in get_args(ChangeKind):
            kinds = ", ".join(get_args(ChangeKind))
            raise ValueError(f"{text!r} is not kind@start[..end][=strength] with a kind of {kinds}")
        return cls.model_validate(dict(zip(("kind", "start", "end", "strength"), match.groups(), strict=True)))
