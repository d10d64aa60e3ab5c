"""The timeline of a model: what steps did and what the ledger says, one row each, in sentences."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter

from perennial_airflow.pages.links import Link, Links, of_facts
from training.contract.life import Event, Overview

#: Step, or kind of ledger entry → its lane. A kind that is not here has a lane of its own name.
LANES = {
    **dict.fromkeys(("check", "ingest", "features", "materialize"), "data"),
    **dict.fromkeys(("request", "decision", "decide_retraining"), "requests"),
    **dict.fromkeys(("dataset", "search", "train"), "trainings"),
    **dict.fromkeys(("register", "evaluate"), "verdicts"),
    **dict.fromkeys(("rollout", "rollback", "stage"), "rollouts"),
    **dict.fromkeys(("drift", "audit"), "drift"),
    **dict.fromkeys(("clean_source", "clean_model", "ledger_verify", "monitoring_run", "look"), "upkeep"),
    **dict.fromkeys(("approval", "request_approval", "record_approval"), "approvals"),
}
#: The lanes that every page has, from the top.
ORDER = ("data", "drift", "performance", "requests", "trainings", "verdicts", "approvals", "rollouts")
#: Steps and kinds that every run has, and that say nothing when they succeed.
ROUTINE = frozenset(
    {"check", "features", "materialize", "dataset", "clean_source", "clean_model", "monitoring_run", "look"}
)
#: What is said first of a ledger entry, where it has these fields.
_FIRST = (
    "phase",
    "outcome",
    "granted",
    "version",
    "trigger",
    "decision",
    "why",
    "reason",
    "failure",
    "comment",
    "requested_by",
)
_AT = TypeAdapter(datetime)
Level = Literal["good", "bad", "plain"]


class Row(NamedTuple):
    at: datetime
    lane: str
    level: Level
    name: str
    """The step, or the kind of ledger entry."""
    what: str
    links: list[Link]
    details: list[tuple[str, str]]
    routine: bool


def timeline(
    about: Overview,
    events: Iterable[Event],
    of_source: Iterable[Event],
    entries: Sequence[Mapping[str, Any]],
    links: Links,
) -> list[Row]:
    """All rows, newest first."""
    own = list(events)
    runs = {each.run_id: each.dag_id for each in own}
    rows = [_of_event(each, about, links) for each in (*own, *of_source)]
    rows += [row for each in entries if (row := _of_entry(each, about, runs, links)) is not None]
    return sorted(rows, key=lambda row: row.at, reverse=True)


def _of_event(event: Event, about: Overview, links: Links) -> Row:
    failed = event.status == "failed"
    what = f"{event.task} failed: {event.error}" if failed else _sentence(event, about.primary)
    found = [("Airflow", links.run(event.dag_id, event.run_id, event.task_id))]
    found += of_facts(event.facts, about.model, about.source, links)
    quiet = event.step in ROUTINE or (event.step == "decide_retraining" and not event.facts.get("request_id"))
    details = [("took", f"{event.seconds:.0f} s")] if event.seconds is not None else []
    details += [("run", event.run_id), *flat(event.facts)]
    level: Level = "bad" if failed or event.facts.get("degraded") else "plain"
    if not failed and event.step in ("rollout", "rollback"):
        level = "good"
    return Row(
        event.at, LANES.get(event.step, event.step), level, event.step, what, found, details, quiet and not failed
    )


def _sentence(event: Event, primary: str) -> str:
    try:
        return sentence(event, primary)
    except (KeyError, TypeError, ValueError, AttributeError):  # Facts of another version of Perennial.
        return f"{event.step} succeeded"


def sentence(event: Event, primary: str) -> str:
    """What a step that has succeeded found or did. Raises KeyError, TypeError, ValueError or AttributeError when its
    facts are others than that step has."""
    facts, get = event.facts, event.facts.get
    match event.step:
        case "ingest":
            said = f"{get('feed')} of {str(get('partition')).replace('_', ' to ')}: {get('outcome')}"
            return f"{said}, {get('rows_kept', 0):,} rows kept, {get('rows_quarantined', 0):,} in quarantine"
        case "drift" if get("outcome") == "measured":
            columns = ", ".join(get("drifted_columns") or [])
            share = f"{facts['drifted_share']:.0%} of the features have drifted"
            return f"Drift: {share}{f' ({columns})' if columns else ''}" if get("drifted") else f"No drift: {share}"
        case "performance" if get("outcome") == "measured":
            value, reference = ((get(name) or {}).get(primary) for name in ("current", "reference"))
            said = f"{primary} {_number(value)}, on the holdout {_number(reference)}"
            return f"{said}, {get('rows', 0):,} labels{'. It has degraded' if get('degraded') else ''}"
        case "audit" if get("outcome") == "measured":
            return f"{get('share', 0):.2%} of the logged values of {get('rows', 0):,} requests are not explained"
        case "decide_retraining":
            return str(get("why", ""))
        case "train":
            return f"{get('estimator')} {get('window') or ''} was fitted in {get('fit_seconds', 0):.0f} s".replace(
                "  ", " "
            )
        case "evaluate":
            verdict = get("verdict") or {}
            said = "Promote" if verdict.get("promote") else "Keep the champion"
            return f"{said}: {(get('challenger') or {}).get('estimator', '')}. " + " ".join(verdict.get("reasons", []))
        case "register":
            return f"Version {get('version')} is registered{' by force' if get('force') else ''}"
        case "rollout":
            return f"Version {get('version')} is in service"
        case "rollback":
            return f"Back to version {get('version')}"
        case "score":
            return f"{get('outcome')}: {get('rows', 0):,} predictions"
    return str(get("outcome") or f"{event.step} succeeded")


def _of_entry(entry: Mapping[str, Any], about: Overview, runs: Mapping[str, str], links: Links) -> Row | None:
    """A row for any kind of ledger entry: its fields as they are. None for one without a time."""
    body, kind = entry.get("body") or {}, str(entry.get("kind", "entry"))
    try:
        at = _AT.validate_python(entry.get("at"))
    except ValueError:
        return None
    fields = flat(body)
    first = [pair for name in _FIRST for pair in fields if pair[0] == name]
    shown = first or fields[:4]
    what = f"{kind.replace('_', ' ')}: " + "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown)
    found: list[Link] = []
    run, version = body.get("run"), body.get("version")
    if isinstance(run, str) and run:
        usual = f"{about.model}_{'rollback' if kind == 'rollback' else 'train'}"
        found.append(("Airflow", links.run(runs.get(run, usual), run)))
    if isinstance(version, int):
        found.append(("Evidence", links.evidence(about.model, version)))
    details = [("ledger entry", str(entry.get("seq", ""))), ("key", str(entry.get("key", ""))), *fields]
    level: Level = "bad" if body.get("phase") in ("failed", "tripped") else "plain"
    return Row(at, LANES.get(kind, kind), level, kind, what, found, details, kind in ROUTINE)


def flat(fields: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested fields as pairs of a dotted name and a text; empty ones are left out."""
    found: list[tuple[str, str]] = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            if value:
                found.append((prefix + name, "; ".join(str(each) for each in value)))
        elif value not in (None, ""):
            found.append((prefix + name, f"{value:.6g}" if isinstance(value, float) else str(value)))
    return found


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not measured"
