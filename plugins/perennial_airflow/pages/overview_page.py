"""The overview of all models: a row for each, those with problems first."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from perennial_airflow.life.summary import Health, Level, health, open_requests
from perennial_airflow.pages.links import Links
from perennial_airflow.pages.rendering import render
from training.contract.life import Measured, Overview

#: Rows of a page.
ROWS = 100
#: Level → how it is called, in the order of the rows.
LEVELS: dict[Level, str] = {"bad": "Failing", "attention": "Needs attention", "good": "Good", "none": "Not in service"}
#: Of a sparkline, in pixels.
_WIDTH, _HEIGHT = 120, 28


class Row(NamedTuple):
    model: Overview
    health: Health
    url: str
    requests: int
    points: str
    """Of the sparkline, as SVG has them."""
    reference: float | None
    """Its height in the sparkline."""


def overview_page(
    models: Sequence[str], found: dict[str, Overview], links: Links, q: str, status: str, page: int
) -> str:
    """The page about those of `models` that the text `q` and the `status` choose."""
    chosen = [found.get(name) or Overview(model=name) for name in models]
    if words := q.lower().split():
        chosen = [each for each in chosen if all(word in _text(each) for word in words)]
    judged = [(each, health(each)) for each in chosen]
    counts = Counter(each.level for _, each in judged)
    order = list(LEVELS)
    shown = [(each, its) for each, its in judged if status in ("", its.level)]
    shown.sort(key=lambda pair: (order.index(pair[1].level), pair[0].model))
    pages = max(1, -(-len(shown) // ROWS))
    page = min(page, pages)
    rows = [_row(each, its, links) for each, its in shown[(page - 1) * ROWS : page * ROWS]]
    tabs: list[dict[str, Any]] = [
        {"name": "All", "count": len(judged), "url": links.overview(q=q), "on": status == ""},
        *(
            {
                "name": LEVELS[level],
                "count": counts[level],
                "url": links.overview(q=q, status=level),
                "on": level == status,
            }
            for level in order
        ),
    ]
    turn = {name: links.overview(q=q, status=status, page=page + step) for name, step in (("before", -1), ("after", 1))}
    return render(
        "overview.html",
        title="Models",
        base=links.base,
        rows=rows,
        tabs=tabs,
        q=q,
        status=status,
        page=page,
        pages=pages,
        turn=turn,
        levels=LEVELS,
        size=(_WIDTH, _HEIGHT),
    )


def _text(each: Overview) -> str:
    return f"{each.model} {each.title} {each.owner} {each.source}".lower()


def _row(each: Overview, its: Health, links: Links) -> Row:
    points, reference = sparkline(each.performance)
    return Row(each, its, links.model(each.model), open_requests(each), points, reference)


def sparkline(points: Sequence[Measured]) -> tuple[str, float | None]:
    """The points of a line over days, and the height of the holdout's value; `` and None for fewer than two points."""
    if len(points) < 2:
        return "", None
    reference = points[-1].reference
    values = [*(each.value for each in points), *([] if reference is None else [reference])]
    first, days = points[0].as_of, max((points[-1].as_of - points[0].as_of).days, 1)
    low, height = min(values), max(values) - min(values) or 1.0

    def y(value: float) -> float:
        return round(2 + (_HEIGHT - 4) * (1 - (value - low) / height), 1)

    line = " ".join(f"{2 + (_WIDTH - 4) * (each.as_of - first).days / days:.1f},{y(each.value)}" for each in points)
    return line, None if reference is None else y(reference)
