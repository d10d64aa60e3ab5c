"""Pages from templates. Jinja escapes every value, so data cannot become markup."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from perennial_airflow.life.summary import of_champion


def render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    made = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters |= {"when": when, "age": age, "number": number, "of_champion": of_champion}
    return made


def when(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def age(at: datetime, now: datetime | None = None) -> str:
    """How long ago, in its largest unit."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if (count := int(seconds // length)) >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
