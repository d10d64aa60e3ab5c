"""The changes that are planted, and until when monitoring should have found each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from local.changes import Change, ChangeKind

GRADUAL_DAYS = 56
DELAY_DAYS, WINDOW_DAYS = 7, 7
#: A victim of `new_fraud` makes 3 payments in each of 7 nights, a customer 2 payments a day.
_OF_EVENTS = 3 * 7 / 2
#: Kind → the strength whose effect is named, and whether inputs show it. Others are seen when labels have come.
_FULL: dict[ChangeKind, tuple[str, float, bool]] = {
    "new_fraud": ("a new kind of fraud, {:.2%} of events", 0.003, False),
    "amount_inflation": ("amounts × {:.3g}", 0.3, True),
    "population_shift": ("{:.0%} newcomers", 0.2, True),
    "zero_amounts": ("{:.2%} of terminals report 0", 0.05, True),
    "moved_frauds": ("{:.0%} of frauds are others", 0.5, False),
}


KINDS: tuple[ChangeKind, ...] = tuple(_FULL)


@dataclass(frozen=True)
class Planted:
    """A change of `magnitude` (1: that of the goal), at once or, when `gradual`, over eight weeks."""

    kind: ChangeKind
    magnitude: float
    gradual: bool = False

    @property
    def title(self) -> str:
        text, strength, _ = _FULL[self.kind]
        shown = self.magnitude * strength
        return text.format(1 + shown if self.kind == "amount_inflation" else shown)

    @property
    def in_inputs(self) -> bool:
        return _FULL[self.kind][2]

    def change(self, start: date) -> Change:
        strength = self.magnitude * _FULL[self.kind][1]
        if self.kind == "new_fraud":
            strength /= _OF_EVENTS
        elif self.kind == "amount_inflation":
            strength += 1
        return Change(kind=self.kind, start=start, strength=strength, over_days=GRADUAL_DAYS if self.gradual else 1)

    @property
    def allowed_days(self) -> int:
        """The days from its start to the last `as_of` that is in time.

        At once: two windows from its start, or from when the first of its labels are known. Gradual: when a third of it
        has happened, or half of it has its labels.
        """
        if self.gradual:
            return GRADUAL_DAYS // 3 if self.in_inputs else GRADUAL_DAYS // 2 + DELAY_DAYS
        return 2 * WINDOW_DAYS + (0 if self.in_inputs else DELAY_DAYS)

    @property
    def watched_days(self) -> int:
        """How long it is watched: a window longer than is allowed, to see what is found too late."""
        return self.allowed_days + WINDOW_DAYS


def label_planted(kinds: Sequence[ChangeKind]) -> Iterator[Planted]:
    """Changes that only labels show, and that are too small for them in a small stream."""
    if "new_fraud" in kinds:
        yield Planted("new_fraud", 1.0)
    for kind in kinds:
        if not _FULL[kind][2]:
            yield Planted(kind, 1.0, gradual=True)


def all_planted(kinds: Sequence[ChangeKind], magnitudes: Sequence[float]) -> Iterator[Planted]:
    """At once by magnitude, then those over eight weeks. A magnitude of 10 gives a new fraud twice."""
    for kind in kinds:
        for magnitude in magnitudes:
            yield Planted(kind, magnitude)
    if "new_fraud" in kinds:
        yield Planted("new_fraud", 10.0)
        yield Planted("new_fraud", 10.0, gradual=True)
    for kind in kinds:
        yield Planted(kind, max(magnitudes), gradual=True)


def planted_on(first: date, seed: int) -> date:
    """The day on which a change begins: another day of the week for each seed."""
    return first + timedelta(days=28 + 3 * seed % 7)
