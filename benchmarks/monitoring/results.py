"""The results of all seeds as tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.monitoring.planted import Planted
from benchmarks.monitoring.watched_stream import Look
from training.contract.model_spec import Trigger

ABRUPT_GOAL, GRADUAL_GOAL, ALARMS_GOAL = 0.95, 0.9, 1.0
#: Not in the goals: what is asked of `new_fraud` is asked of no other change that only labels show.
WITHOUT_GOAL = ("moved_frauds",)


@dataclass(frozen=True)
class Year:
    """The looks at an unchanged stream: every reason found is a false one."""

    seed: int
    years: float
    looks: int
    #: By trigger: looks with it as their reason, and those of which a training was granted.
    reasons: Counter[str]
    granted: Counter[str]
    #: By column: looks in which it had drifted.
    drifted: Counter[str]

    @classmethod
    def of(cls, seed: int, years: float, looks: Sequence[Look]) -> "Year":
        reasons = Counter(trigger for look in looks for trigger in look.triggers)
        granted = Counter(look.triggers[0] for look in looks if look.granted)
        columns = Counter(name for look in looks for name, found in look.drift.columns.items() if found.drifted)
        return cls(seed, years, len(looks), reasons, granted, columns)


@dataclass(frozen=True)
class Found:
    """After how many days a planted change was seen, by what, and a training was granted; None: not while watched."""

    planted: Planted
    seed: int
    seen: int | None
    by: tuple[Trigger, ...]
    columns: tuple[str, ...]
    granted: int | None

    def in_time(self, days: int | None) -> bool:
        return days is not None and days <= self.planted.allowed_days


@dataclass(frozen=True)
class SeedResult:
    seed: int
    customers: int
    year: Year | None
    found: list[Found]
    cpu_seconds: float


def table(results: Sequence[SeedResult]) -> str:
    """What must be reached, with what was."""
    heads = ("what", "customers", "in time", "goal", "met", "training granted in time", "days until seen", "seen by")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    years = [result.year for result in results if result.year is not None]
    if years:
        customers = " and ".join(f"{each:,}" for each in sorted({each.customers for each in results if each.year}))
        length, granted = sum(each.years for each in years), sum((each.granted for each in years), Counter[str]())
        rate = granted.total() / length
        by = ", ".join(f"{number} by {trigger}" for trigger, number in granted.items()) or "none"
        lines.append(
            f"| unchanged, {length:.1f} years: trainings asked for per year | {customers} | {rate:.2f} | "
            f"≤ {ALARMS_GOAL:.0f} | {_met(rate <= ALARMS_GOAL)} | {by} | | |"
        )
    groups: dict[tuple[int, Planted], list[Found]] = {}
    for result in results:
        for found in result.found:
            groups.setdefault((result.customers, found.planted), []).append(found)
    return "\n".join([*lines, *(_line(*group, found) for group, found in groups.items())])


def _line(customers: int, planted: Planted, found: Sequence[Found]) -> str:
    seen = sum(each.in_time(each.seen) for each in found)
    granted = sum(each.in_time(each.granted) for each in found)
    days = sorted(each.seen for each in found if each.seen is not None)
    by = Counter(trigger for each in found for trigger in each.by)
    named = ", ".join(f"{trigger} {number}" for trigger, number in by.most_common())
    goal, met = "", ""
    if planted.magnitude >= 1 and planted.kind not in WITHOUT_GOAL:
        wanted = GRADUAL_GOAL if planted.gradual else ABRUPT_GOAL
        goal, met = f"≥ {wanted:.0%}", _met(seen >= wanted * len(found))
    way = "over 8 weeks" if planted.gradual else "at once"
    when = f"{median(days):.0f} ({days[0]} … {days[-1]})" if days else "never"
    what = f"{planted.title}, {way}, within {planted.allowed_days} days"
    cells = (what, f"{customers:,}", f"{seen} of {len(found)}", goal, met, str(granted), when, named)
    return f"| {' | '.join(cells)} |"


def figures(results: Sequence[SeedResult]) -> str:
    """Of the unchanged streams: looks per year with each reason, and with each column drifted."""
    years = [result.year for result in results if result.year is not None]
    if not years:
        return ""
    length, looks = sum(each.years for each in years), sum(each.looks for each in years)
    lines = [f"Unchanged: {looks} looks in {length:.1f} years. Per year, in how many looks:"]
    for name, counters in (("reason", [each.reasons for each in years]), ("column", [each.drifted for each in years])):
        for key, number in sum(counters, Counter[str]()).most_common():
            lines.append(f"  {name} {key:<45} {number / length:7.2f}")
    return "\n".join(lines)


def _met(reached: bool) -> str:
    return "yes" if reached else "no"
