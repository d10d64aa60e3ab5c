"""What the demo did: which runs started when and why, what their verdicts were, and whether a part is missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from textwrap import shorten
from typing import Any

from local.airflow_api import Airflow, Run
from training.contract.names import shown
from training.contract.tasks import MetricRule

#: The steps of a training run, and of a monitoring run, whose results are in the timeline.
TRAINING = ("decide_retraining", "dataset", "evaluate", "register", "rollout")
WATCHING = ("drift", "performance", "decide_retraining")


@dataclass(frozen=True)
class Entry:
    """One run with the results of its steps and the asset events that started it."""

    run: Run
    results: dict[str, dict[str, Any]]
    causes: list[dict[str, Any]]
    page: str


def entries(airflow: Airflow) -> list[Entry]:
    """All monitoring and training runs so far, in the order of their starts."""
    found = []
    for kind, steps in (("monitor", WATCHING), ("train", TRAINING)):
        for run in airflow.runs(kind):
            results = {step: result for step in steps if (result := airflow.result(run, step))}
            found.append(Entry(run, results, airflow.causes(run), airflow.page(run)))
    return sorted(found, key=lambda c: (c.run.started is None, c.run.started))


@dataclass(frozen=True)
class Check:
    """Something that must have happened. `found` describes what did."""

    expected: str
    held: bool
    found: str


def checks(
    timeline: list[Entry], champion: int | None, metrics: Mapping[str, MetricRule], serves_by: date | None = None
) -> list[Check]:
    """What must have happened for `make demo ARGS=--exit` to end with 0. `metrics`: those of the model's task.
    `serves_by`: the last day as of which the version that replaces the first one may have been trained."""
    trained = [c for c in timeline if c.run.kind == "train"]
    first = next((c for c in trained if version(c) == 1), None)
    winner = winning(timeline)
    looks = [c for c in timeline if c.results.get("drift", {}).get("outcome") == "measured"]
    drifted = [c for c in looks if c.results["drift"]["drifted"]]
    reports = [Path(c.results["drift"]["report_html"]) for c in drifted if c.results["drift"].get("report_html")]
    measured = [c for c in timeline if c.results.get("performance", {}).get("outcome") == "measured"]
    made = [
        Check("a first training made version 1", first is not None, described(first)),
        Check("the monitor DAG found drift", bool(drifted), f"in {len(drifted)} of {len(looks)} looks{_most(looks)}"),
        Check("its reports are there", bool(reports) and all(r.is_file() for r in reports), f"{len(reports)} reports"),
        Check("logged predictions met their late labels", bool(measured), f"in {len(measured)} runs"),
        Check(
            "a training that drift or performance asked for was rolled out",
            winner is not None,
            described(winner) if winner else _why_none(timeline),
        ),
    ]
    if winner is None:
        return made
    request, evaluation = winner.results["decide_retraining"], winner.results["evaluate"]
    verdict = evaluation["verdict"]
    primary = verdict["primary"]
    new, old = verdict["challenger"][primary], (verdict["champion"] or {}).get(primary)
    beaten = old is not None and metrics[primary].sign * (new - old) > 0
    compared = f"{primary} {new:.3f} against " + ("none" if old is None else f"{old:.3f}")
    asset = next((c["asset"] for c in winner.causes), None)
    if serves_by is not None:
        as_of = winner.results["dataset"]["as_of"]
        soon = Check(f"it knew only what was known by {serves_by}", as_of <= str(serves_by), f"as of {as_of}")
        made.append(soon)
    return [
        *made,
        Check("the retrain asset started it", asset is not None, f"asset {asset}"),
        Check("it says why", bool(request["reason"]), shorten(request["reason"], 160, placeholder=" …")),
        Check("the verdict was positive", verdict["promote"], f"{len(verdict['reasons'])} gates passed"),
        Check("it beats the version before on the same holdout", beaten, compared),
        Check("its version serves", champion == version(winner) and (champion or 0) >= 2, f"version {champion} serves"),
    ]


def winning(timeline: list[Entry]) -> Entry | None:
    """The first training because of drift or performance whose version was rolled out."""
    return next((c for c in _asked_for(timeline) if version(c)), None)


def _asked_for(timeline: list[Entry]) -> list[Entry]:
    """The trainings because of drift or performance."""
    trained = [c for c in timeline if c.run.kind == "train"]
    return [c for c in trained if c.results.get("decide_retraining", {}).get("trigger") in ("drift", "performance")]


def _most(looks: list[Entry]) -> str:
    """The look with the most drift, as the end of a sentence."""
    if not looks:
        return ""
    most = max((c.results["drift"] for c in looks), key=lambda drift: drift["drifted_share"])
    return f", at most {most['drifted_share']:.0%} of the features ({_window(most)})"


def _why_none(timeline: list[Entry]) -> str:
    """Why no version was rolled out because of drift or performance: of the last training, or of the last look."""
    if asked := _asked_for(timeline):
        reasons = asked[-1].results.get("evaluate", {}).get("verdict", {}).get("reasons", [])
        failed = [reason for reason in reasons if not reason.startswith(("passed", "noted"))]
        return f"there is none. Run {asked[-1].run.id}: {'; '.join(failed) or asked[-1].run.state}"
    said = [
        why for c in timeline if c.run.kind == "monitor" and (why := c.results.get("decide_retraining", {}).get("why"))
    ]
    return "there is none" + (f". The last look: {said[-1]}" if said else "")


def version(entry: Entry) -> int | None:
    return entry.results.get("rollout", {}).get("version")


def described(entry: Entry | None) -> str:
    return f"run {entry.run.id}" if entry else "there is none"


def lines(timeline: list[Entry]) -> Iterator[str]:
    """The timeline as text. Times are UTC, as in Airflow's UI."""
    asked: dict[str, str] = {}
    for entry in timeline:
        at = f"{entry.run.started:%H:%M:%S}" if entry.run.started else "waiting "
        if entry.run.kind == "monitor":
            heading, *details = _watched(entry)
            if reason := entry.results.get("decide_retraining", {}).get("reason"):
                asked[reason] = at
        else:
            heading, *details = _trained(entry, asked)
        yield f"  {at}  {entry.run.kind:<7} {heading}"
        yield from (f"                   {detail}" for detail in details)


def _watched(entry: Entry) -> Iterator[str]:
    drift, request = entry.results.get("drift", {}), entry.results.get("decide_retraining", {})
    performance = entry.results.get("performance", {})
    snapshot = drift.get("snapshot", drift)  # Perennial 0.1 had its fields in the result itself.
    if drift.get("outcome") == "measured":
        share = f"{drift['drifted_share']:.0%} of the features drifted"
        yield f"{_window(drift)}: {share} against what version {snapshot['champion_version']} was trained on"
    else:
        outcome, as_of = drift.get("outcome", entry.run.state), snapshot.get("as_of")
        yield f"as of {as_of}: {outcome}" if as_of else outcome
    if performance.get("outcome") == "measured":
        now, before = performance["current"], performance["reference"]
        yield "on matured labels: " + ", ".join(
            f"{m} {now[m]:.3f} ({before.get(m, 0):.3f} on its holdout)" for m in now
        )
    if drift.get("report_html"):
        yield f"report: {drift['report_html']}"
    if request:
        yield f"request: {request.get('reason') or 'none'} → {request['why']}"


def _trained(entry: Entry, asked: Mapping[str, str]) -> Iterator[str]:
    """`asked`: the reason of a request → when the monitoring run began that made it. Such a reason is not repeated."""
    request, dataset = entry.results.get("decide_retraining", {}), entry.results.get("dataset", {})
    why = "; ".join(f"asset {c['asset']}" for c in entry.causes) or entry.run.type
    reason = request.get("reason", "no reason is known yet")
    said = f"as requested at {asked[reason]}" if reason in asked else reason
    yield f"because of {request.get('trigger')} ({said}), by {why}"
    if dataset:
        train, holdout = dataset["train"], dataset["holdout"]
        yield f"trained on {_days(train)}, evaluated on {_days(holdout)}, with what was known by {dataset['as_of']}"
    evaluation = entry.results.get("evaluate")
    if evaluation:
        verdict = evaluation["verdict"]
        decision = "promote" if verdict["promote"] else "keep the champion"
        challenger = evaluation["challenger"]
        fitted = f"{challenger['estimator']} {challenger.get('window', '')}".strip()
        yield f"verdict on {fitted}: {decision}"
        yield from (f"  {reason}" for reason in verdict["reasons"])
    if version(entry):
        seconds = entry.results["rollout"]["seconds"]
        yield f"version {version(entry)} serves, {seconds:.1f} s after its registration"
    elif (registered := entry.results.get("register", {})).get("ask"):
        yield f"version {registered['version']} waits for a person: see Required Actions in Airflow"


def _window(drift: dict[str, Any]) -> str:
    return f"{drift['window']['start']} up to {drift['window']['end']}"


def _days(split: dict[str, Any]) -> str:
    rows = [f"{split['rows']} rows", *(f"{count} {shown(name)}" for name, count in split["counts"].items())]
    return f"{split['days']['start']} up to {split['days']['end']} ({', '.join(rows)})"


def quality(winner: Entry) -> Iterator[str]:
    """The metrics of the old and the new version on the same holdout."""
    verdict = winner.results["evaluate"]["verdict"]
    for metric, new in verdict["challenger"].items():
        old = (verdict["champion"] or {}).get(metric)
        before = "  –  " if old is None else f"{old:.3f}"
        yield f"  {metric:<22} {before} → {new:.3f}"
    if verdict["difference"]:
        low, high = verdict["difference"]
        yield f"  {verdict['primary']}: {low:+.3f} to {high:+.3f}, each end at {verdict['confidence']:.0%}"
