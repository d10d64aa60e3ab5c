"""The plots of a model's page, as Plotly's traces and layout. The script draws them, and gives the colours.

A point may have an address in `customdata`, which a click opens. Plotly reads the text of a hover as markup, so texts
of data are escaped.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

from perennial_airflow.life.summary import measured
from perennial_airflow.pages.links import Links, of_facts
from perennial_airflow.pages.timeline import ORDER, Row
from training.contract.life import Event, Overview

#: Longest text of a hover, in characters.
_HOVER = 160
#: Level of a row → its name in the legend, and its symbol.
_LEVELS = (("plain", "done", "circle"), ("good", "in service", "diamond"), ("bad", "failed or worse", "x"))


class Figure(NamedTuple):
    title: str
    says: str
    """What it shows, for people who cannot see it."""
    json: str


class Service(NamedTuple):
    """A version was in service from `since` to `until`; None: it is."""

    version: int
    since: datetime
    until: datetime | None


def figures(
    about: Overview, events: Sequence[Event], of_source: Sequence[Event], rows: Sequence[Row], links: Links
) -> list[Figure]:
    """The plots that have something to show."""
    served = services(events, rows)
    made = [
        _lanes(rows, served),
        _performance(about, events, served, links),
        _drift(about, events, links),
        _data(about, of_source, links),
    ]
    return [figure for figure in made if figure is not None]


def services(events: Iterable[Event], rows: Iterable[Row]) -> list[Service]:
    """The versions in service one after another, by the ledger and by the tasks that have moved them."""
    moves: list[tuple[datetime, int]] = []
    for row in rows:
        fields = dict(row.details)
        if row.name in ("rollout", "rollback") and fields.get("phase") == "finished":
            moves.append((row.at, int(fields["version"])))
    for event in events:
        if event.step in ("rollout", "rollback") and event.status == "succeeded" and event.facts.get("version"):
            moves.append((event.at, int(event.facts["version"])))
    changes = [move for before, move in pairwise([(datetime.min, 0), *sorted(moves)]) if before[1] != move[1]]
    ends: list[datetime | None] = [at for at, _ in changes[1:]]
    return [Service(version, at, end) for (at, version), end in zip(changes, [*ends, None], strict=False)]


def _lanes(rows: Sequence[Row], served: Sequence[Service]) -> Figure | None:
    shown = [row for row in rows if not row.routine]
    if not shown:
        return None
    lanes = [*ORDER, *sorted({row.lane for row in shown} - set(ORDER))]
    traces = []
    for level, name, symbol in _LEVELS:
        of_level = [row for row in shown if row.level == level]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [_at(row.at) for row in of_level],
                "y": [_hover(row.lane) for row in of_level],
                "text": [_hover(row.what) for row in of_level],
                "customdata": [row.links[0][1] if row.links else "" for row in of_level],
                "hovertemplate": "%{x}<br>%{text}<extra>%{y}</extra>",
                "marker": {"size": 10, "color": f"@{level}", "symbol": symbol},
            }
        )
    layout = {
        "yaxis": {
            "categoryorder": "array",
            "categoryarray": [_hover(lane) for lane in reversed(lanes)],
            "range": [-0.5, len(lanes) - 0.5],
        },
        "height": 60 + 34 * (len(lanes) + 1),
        "shapes": [_line(each) for each in served],
        "annotations": [_label(each) for each in served],
    }
    says = "What happened when. A dotted line is a version that came into service. Click a point to open its run."
    return _figure("Timeline", says, traces, layout)


def _performance(about: Overview, events: Sequence[Event], served: Sequence[Service], links: Links) -> Figure | None:
    found = {point.as_of: (point, event) for event in events if (point := measured(event, about.primary))}
    if not found:
        return None
    days = sorted(found)
    points = [found[day][0] for day in days]
    x = [str(day) for day in days]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": about.primary,
            "x": x,
            "y": [point.value for point in points],
            "text": [f"version {point.version}{', degraded' if point.degraded else ''}" for point in points],
            "customdata": [links.run(found[day][1].dag_id, found[day][1].run_id) for day in days],
            "hovertemplate": "labels as of %{x}<br>%{y:.4g}<br>%{text}<extra></extra>",
            "line": {"color": "@accent"},
            "marker": {"size": 8, "color": ["@bad" if point.degraded else "@accent" for point in points]},
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "on the holdout",
            "x": x,
            "y": [point.reference for point in points],
            "hovertemplate": "on the holdout %{y:.4g}<extra></extra>",
            "line": {"color": "@muted", "dash": "dash", "shape": "hv"},
        },
    ]
    traces += _estimates(events)
    return _figure(
        f"Performance: {about.primary}",
        "The deciding metric of the version in service, on late labels and on its holdout. Click to open the run.",
        traces,
        {"height": 320},
    )


def _estimates(events: Sequence[Event]) -> list[dict[str, Any]]:
    """What was estimated before the labels came, with its interval."""
    found: dict[str, tuple[float, float]] = {}
    for event in events:
        estimate = event.facts.get("estimated") if event.step == "performance" else None
        window = (estimate or {}).get("window") or {}
        if estimate and window.get("end") and estimate.get("low") is not None and estimate.get("high") is not None:
            found[str(window["end"])] = (estimate["low"], estimate["high"])
    if not found:
        return []
    days = sorted(found)
    middle = [(found[day][0] + found[day][1]) / 2 for day in days]
    half = [(found[day][1] - found[day][0]) / 2 for day in days]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "estimated before labels",
            "x": days,
            "y": middle,
            "error_y": {"type": "data", "array": half, "color": "@muted", "thickness": 1},
            "hovertemplate": "estimated for the days before %{x}: %{y:.4g}<extra></extra>",
            "marker": {"size": 6, "color": "@muted", "symbol": "circle-open"},
        }
    ]


def _drift(about: Overview, events: Sequence[Event], links: Links) -> Figure | None:
    looks: dict[str, Event] = {}
    for event in events:
        if event.step == "drift" and event.facts.get("outcome") == "measured":
            looks[str((event.facts.get("snapshot") or {}).get("as_of"))] = event
    if not looks:
        return None
    days = sorted(looks)
    found = [looks[day] for day in days]
    reports = [dict(of_facts(each.facts, about.model, about.source, links)).get("Drift report", "") for each in found]
    trace = {
        "type": "bar",
        "name": "drifted",
        "x": days,
        "y": [each.facts.get("drifted_share", 0) for each in found],
        "text": [_hover(", ".join(each.facts.get("drifted_columns") or []) or "no feature") for each in found],
        "textposition": "none",
        "customdata": reports,
        "hovertemplate": "as of %{x}: %{y:.0%}<br>%{text}<extra></extra>",
        "marker": {"color": ["@bad" if each.facts.get("drifted") else "@plain" for each in found]},
    }
    layout = {"height": 240, "yaxis": {"tickformat": ".0%", "range": [0, 1]}}
    says = "The share of features that have drifted. Red: a reason to train. Click a bar to open Evidently's report."
    return _figure("Drift", says, [trace], layout)


def _data(about: Overview, of_source: Sequence[Event], links: Links) -> Figure | None:
    taken = [each for each in of_source if each.step == "ingest" and each.status == "succeeded"]
    if not taken:
        return None
    feeds = list(dict.fromkeys(str(each.facts.get("feed")) for each in taken))
    colors = ("@plain", "@muted", "@accent", "@good")
    traces = [
        _partitions(
            f"{feed}, kept",
            colors[number % len(colors)],
            "rows_kept",
            [e for e in taken if e.facts.get("feed") == feed],
        )
        for number, feed in enumerate(feeds)
    ]
    traces.append(_partitions("in quarantine", "@bad", "rows_quarantined", taken))
    for trace in traces:
        trace["customdata"] = [links.partition(about.source, uri) for uri in trace["customdata"]]
    says = "Rows of each partition, by its first day. Click a bar to open the page of the partition."
    return _figure("Data", says, traces, {"height": 260, "barmode": "stack"})


def _partitions(name: str, color: str, fact: str, taken: Sequence[Event]) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": _hover(name),
        "x": [str(each.facts.get("partition", "")).partition("_")[0] for each in taken],
        "y": [each.facts.get(fact, 0) for each in taken],
        "text": [_hover(f"{each.facts.get('feed')} of {each.facts.get('partition')}") for each in taken],
        "textposition": "none",
        "customdata": [each.facts.get("data_docs") for each in taken],
        "hovertemplate": "%{text}: %{y:,} rows<extra>" + escape(name) + "</extra>",
        "marker": {"color": color},
    }


def _line(each: Service) -> dict[str, Any]:
    line, x = {"color": "@good", "width": 1, "dash": "dot"}, _at(each.since)
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def _label(each: Service) -> dict[str, Any]:
    where = {"xref": "x", "yref": "paper", "x": _at(each.since), "y": 1, "yanchor": "bottom", "showarrow": False}
    return {**where, "text": f"v{each.version}"}


def _figure(title: str, says: str, traces: list[dict[str, Any]], layout: dict[str, Any]) -> Figure:
    return Figure(title, says, json.dumps({"traces": traces, "layout": layout}))


def _at(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _hover(text: str) -> str:
    return escape(text if len(text) <= _HOVER else f"{text[: _HOVER - 1]}…", quote=False)
