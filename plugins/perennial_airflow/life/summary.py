"""The summary of a model's events. Events may come in any order: each part keeps the newest event about it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from training.contract.life import Drifted, Event, Judged, Measured, Outcome, Overview, Registered, Served, Waiting

#: So many points of the primary metric are kept.
POINTS = 30
Level = Literal["bad", "attention", "good", "none"]


def add(overview: Overview, event: Event) -> Overview:
    """The summary with an event."""
    changes = dict[str, Any]()
    if overview.at is None or event.at > overview.at:
        changes["at"] = event.at
    before = overview.outcomes.get(event.task)
    if before is None or event.at >= before.at:
        mapped = event.map_index >= 0
        fields = {field: getattr(event, field) for field in ("at", "status", "error", "dag_id", "run_id")}
        changes["outcomes"] = {**overview.outcomes, event.task: Outcome(mapped=mapped, **fields)}
    if event.status == "succeeded":
        changes |= _told(overview, event)
    return overview.model_copy(update=changes)


def _told(overview: Overview, event: Event) -> dict[str, Any]:
    """What the result of a step changes."""
    facts, at, found = event.facts, event.at, dict[str, Any]()
    snapshot = facts.get("snapshot") or {}
    match event.step:
        case "rollout" | "rollback" if facts.get("version"):
            found["champion"] = Served(at=at, version=facts["version"])
        case "register" if facts.get("version"):
            found["registered"] = Registered(at=at, version=facts["version"], asks=bool(facts.get("ask")))
        case "record_approval" if overview.registered and overview.registered.version == facts.get("version"):
            # A refused answer leaves the request open.
            if (outcome := facts.get("outcome")) != "refused":
                ended = "" if facts.get("approved") else str(outcome)
                found["registered"] = overview.registered.model_copy(update={"at": at, "asks": False, "ended": ended})
        case "evaluate" if isinstance(facts.get("verdict"), Mapping):
            verdict, challenger = facts["verdict"], facts.get("challenger") or {}
            named = f"{challenger.get('estimator', '')} {challenger.get('window', '')}".strip()
            reasons = verdict.get("reasons", [])
            found["verdict"] = Judged(at=at, promote=verdict["promote"], challenger=named, reasons=reasons)
        case "drift":
            if facts.get("outcome") == "measured":
                share, drifted = facts["drifted_share"], facts["drifted"]
                found["drift"] = Drifted(at=at, as_of=snapshot.get("as_of"), share=share, drifted=drifted)
            if snapshot.get("champion_version"):
                found["champion"] = _same(overview.champion, at, snapshot["champion_version"])
        case "performance" if (point := measured(event, overview.primary)) is not None:
            points = {each.as_of: each for each in overview.performance}
            if point.as_of not in points or points[point.as_of].at <= at:
                points[point.as_of] = point
            return {"performance": [points[day] for day in sorted(points)][-POINTS:]}
        case "decide_retraining":
            found["waiting"] = Waiting(at=at, requests=facts.get("waiting") or [])
    return {name: value for name, value in found.items() if _newer(getattr(overview, name), value.at)}


def measured(event: Event, primary: str) -> Measured | None:
    """The primary metric that a step `performance` measured; None when it measured none."""
    facts, snapshot = event.facts, event.facts.get("snapshot") or {}
    value = (facts.get("current") or {}).get(primary)
    if facts.get("outcome") != "measured" or value is None or not snapshot.get("as_of"):
        return None
    return Measured(
        at=event.at,
        as_of=snapshot["as_of"],
        value=value,
        reference=(facts.get("reference") or {}).get(primary),
        degraded=bool(facts.get("degraded")),
        version=snapshot.get("champion_version"),
    )


def _same(before: Served | None, at: datetime, version: int) -> Served:
    """A monitor saw the version in service. When it is the known one, it has served since before."""
    return before if before is not None and before.version == version else Served(at=at, version=version)


def _newer(before: Any, at: datetime) -> bool:
    return before is None or at >= before.at


class Health(NamedTuple):
    level: Level
    why: list[str]


def health(overview: Overview) -> Health:
    """Red or green, and the reasons as sentences, the worst first."""
    bad, attention = list[str](), list[str]()
    evaluated = overview.outcomes.get("evaluate")
    for task, outcome in sorted(overview.outcomes.items()):
        # A candidate that failed has dropped out, if the verdict was reached without it.
        if outcome.status == "failed" and not (outcome.mapped and evaluated and evaluated.at > outcome.at):
            bad.append(f"{task} failed: {outcome.error.splitlines()[0] if outcome.error else 'no message'}")
    champion = overview.champion
    if (looks := overview.performance) and looks[-1].degraded and of_champion(looks[-1].at, champion):
        bad.append("Performance has degraded beyond chance.")
    if (drift := overview.drift) is not None and drift.drifted and of_champion(drift.at, champion):
        attention.append(f"{drift.share:.0%} of the features have drifted.")
    if (waiting := open_requests(overview)) > 0:
        said = "requests to train wait" if waiting > 1 else "request to train waits"
        attention.append(f"{waiting} granted {said} for a run.")
    if (version := unserved(overview)) is not None:
        waits = (
            "waits for a person to decide" if overview.registered and overview.registered.asks else "is not in service"
        )
        attention.append(f"Version {version} {waits}.")
    if bad or attention:
        return Health("bad" if bad else "attention", bad + attention)
    if champion is None:
        return Health("none", ["No version is in service yet."])
    return Health("good", [])


def of_champion(look: datetime, champion: Served | None) -> bool:
    """Whether a look was at the version in service. One from before says nothing about it."""
    return champion is None or look >= champion.at


def open_requests(overview: Overview) -> int:
    return len(overview.waiting.requests) if overview.waiting else 0


def unserved(overview: Overview) -> int | None:
    """The newest version, when nothing has brought it, or a later one, into service, and no person has refused it."""
    newest, champion = overview.registered, overview.champion
    if (
        newest is None
        or newest.ended
        or (champion is not None and (champion.version == newest.version or champion.at > newest.at))
    ):
        return None
    return newest.version
