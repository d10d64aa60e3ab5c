"""Checks cron expressions when a spec is loaded, because an invalid one would break the DAGs of all models.

Airflow parses them with croniter, which is not in the images of the steps.
"""

_PRESETS = frozenset(["@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly"])
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
#: Name, lowest and highest number, names for the numbers from the lowest on.
_FIELDS: list[tuple[str, int, int, list[str]]] = [
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of the month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _WEEKDAYS),
]
_LONGEST = {month: 30 if month in (4, 6, 9, 11) else 29 if month == 2 else 31 for month in range(1, 13)}


def cron_mistake(expression: str) -> str | None:
    """The mistake in a cron expression of five fields or a preset such as `@daily`; None when there is none.

    A field is `*`, a number or a range `a-b`, each with an optional step `/n`, or a list of these. Months and weekdays
    may be names.
    """
    if expression in _PRESETS:
        return None
    parts = expression.split()
    if len(parts) != len(_FIELDS):
        return f"has {len(parts)} fields instead of 5: minute, hour, day of the month, month, day of the week"
    sets = []
    for part, (name, low, high, names) in zip(parts, _FIELDS, strict=True):
        try:
            sets.append(_numbers(part, low, high, names))
        except ValueError as error:
            return f"has {part!r} as its {name}: {error}"
    days, months = sets[2], sets[3]
    if parts[4] == "*" and all(min(days) > _LONGEST[month] for month in months):
        return "has a day that does not exist in any of its months, so it would never run"
    return None


def _numbers(part: str, low: int, high: int, names: list[str]) -> set[int]:
    """The numbers that `part` means. Raises ValueError."""
    found: set[int] = set()
    for item in part.split(","):
        span, slash, step = item.partition("/")
        if slash and (not _is_number(step) or int(step) == 0):
            raise ValueError(f"the step {step!r} is not a number of 1 or more")
        if span == "*":
            first, last = low, high
        else:
            start, dash, end = span.partition("-")
            first = _number(start, low, high, names)
            last = _number(end, low, high, names) if dash else high if slash else first
        if first > last:
            raise ValueError(f"the range {span} runs backwards")
        found.update(range(first, last + 1, int(step) if slash else 1))
    return found


def _number(text: str, low: int, high: int, names: list[str]) -> int:
    if text.lower() in names:
        return low + names.index(text.lower())
    if not _is_number(text) or not low <= int(text) <= high:
        raise ValueError(f"{text or 'nothing'!r} is not within {low} … {high}")
    return int(text)


def _is_number(text: str) -> bool:
    """Python also takes digits of other scripts for a number."""
    return text.isascii() and text.isdecimal()
