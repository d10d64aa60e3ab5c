"""The page of one model: what it is now, its plots, its versions, and its timeline."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from perennial_airflow.life.summary import health, open_requests
from perennial_airflow.pages.figures import Service, figures, services
from perennial_airflow.pages.links import Link, Links
from perennial_airflow.pages.overview_page import LEVELS
from perennial_airflow.pages.rendering import render
from perennial_airflow.pages.timeline import timeline
from training.contract.life import Event, Overview


class Version(NamedTuple):
    number: int
    registered: datetime | None
    served: list[Service]
    verdict: str
    links: list[Link]


def model_page(
    about: Overview,
    events: Sequence[Event],
    of_source: Sequence[Event] | None,
    entries: Sequence[Mapping[str, Any]],
    links: Links,
    routine: bool,
    more: int | None,
) -> str:
    """`of_source`: None when the user may not see the source. `routine`: show what every run has, too. `more`: how many
    events to show next; None when these are all."""
    rows = timeline(about, events, of_source or (), entries, links)
    served = services(events, rows)
    hidden = 0 if routine else sum(row.routine for row in rows)
    return render(
        "model.html",
        title=about.title or about.model,
        base=links.base,
        overview_url=links.overview(),
        about=about,
        health=health(about),
        levels=LEVELS,
        requests=open_requests(about),
        figures=figures(about, events, of_source or (), rows, links),
        versions=_versions(about, events, served, links),
        rows=[row for row in rows if routine or not row.routine],
        hidden=hidden,
        hides_source=of_source is None and bool(about.source),
        routine_url=links.model(about.model, routine="true") if hidden else "",
        more_url=links.model(about.model, newest=more, routine=routine and "true") if more else "",
    )


def _versions(about: Overview, events: Sequence[Event], served: Sequence[Service], links: Links) -> list[Version]:
    """Newest first."""
    registered = {each.facts["version"]: each for each in events if each.step == "register" and "version" in each.facts}
    found = []
    for number in sorted(registered.keys() | {each.version for each in served}, reverse=True):
        event = registered.get(number)
        facts = event.facts if event else {}
        reached = facts.get("verdict") or {}
        negative = "registered by force" if facts.get("force") else "negative, a person decides"
        verdict = "" if not reached else "promoted" if reached.get("promote") else negative
        of_version = [("Evidence", links.evidence(about.model, number))]
        if url := links.mlflow_version(about.model, number):
            of_version.append(("MLflow", url))
        if event:
            of_version.append(("Airflow", links.run(event.dag_id, event.run_id)))
        periods = [each for each in served if each.version == number]
        found.append(Version(number, event.at if event else None, periods, verdict, of_version))
    return found
