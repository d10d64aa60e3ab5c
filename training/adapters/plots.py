"""Draws the charts of a training run (domain/charts.py). matplotlib draws them without a display."""

from collections.abc import Iterable
from functools import singledispatch
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from training.domain.charts import Bars, Chart, Cloud, Grid, Histogram, Line

_STYLES: dict[str, dict[str, Any]] = {
    "plain": {},
    "steps": {"drawstyle": "steps-post"},
    "marked": {"marker": "o"},
    "dotted": {"linestyle": ":", "color": "grey"},
}


def draw(folder: Path, charts: Iterable[Chart]) -> None:
    """Write `<name>.png` of each chart into `folder`."""
    for chart in charts:
        figure = Figure(figsize=(6.4, 4.8), dpi=110)
        axes = figure.add_subplot(xlabel=_as_it_is(chart.x), ylabel=_as_it_is(chart.y))
        # Without `y`, matplotlib looks for ticks above the axes, which takes a sixth of the time of a chart.
        axes.set_title(_as_it_is(chart.title), y=1.0)
        for part in chart.parts:
            _add(part, axes)
        if chart.logarithmic:
            axes.set(xscale="log", yscale="log")
        if any(isinstance(part, Line) and part.label for part in chart.parts):
            axes.legend()
        if not all(isinstance(part, Line) for part in chart.parts):  # Names need more room than there is beside axes.
            figure.tight_layout()
        # `savefig` would draw a figure with a layout twice, and pack it closer than is worth the time.
        FigureCanvasAgg(figure).print_png(folder / f"{chart.name}.png", pil_kwargs={"compress_level": 1})


def _as_it_is(name: str) -> str:
    """A name of a class or a column may have dollars. matplotlib would read what is between two as a formula."""
    return name.replace("$", r"\$")


@singledispatch
def _add(part: object, axes: Axes) -> None:
    raise TypeError(f"Cannot draw a {type(part).__name__}")


@_add.register
def _line(part: Line, axes: Axes) -> None:
    axes.plot(part.x, part.y, label=_as_it_is(part.label) or None, **_STYLES[part.style])


@_add.register
def _grid(part: Grid, axes: Axes) -> None:
    """Each row in the shades of its own shares, so that a rare class can be seen."""
    shares = part.counts / part.counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(part.columns)), map(_as_it_is, part.columns))
    axes.set_yticks(range(len(part.rows)), map(_as_it_is, part.rows))
    for (row, column), count in _each(part):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour)


def _each(part: Grid) -> list[tuple[tuple[int, int], int]]:
    rows, columns = part.counts.shape
    return [((row, column), int(part.counts[row, column])) for row in range(rows) for column in range(columns)]


@_add.register
def _cloud(part: Cloud, axes: Axes) -> None:
    axes.hexbin(part.x, part.y, gridsize=60, mincnt=1, cmap="Blues", norm=LogNorm())


@_add.register
def _bars(part: Bars, axes: Axes) -> None:
    ranked = sorted(zip(part.names, part.values, strict=True), key=lambda bar: bar[1])
    axes.barh([_as_it_is(name) for name, _ in ranked], [value for _, value in ranked])


@_add.register
def _histogram(part: Histogram, axes: Axes) -> None:
    axes.hist(part.values, bins=60)
