"""The report of a backtest: a table, pictures, and a run in MLflow."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from training import atomic, storage
from training.adapters.plots import draw
from training.adapters.registry import Runs
from training.contract.base import Days
from training.contract.messages import BacktestInputs, BacktestResult, Recommendation, Standing
from training.contract.model_spec import ModelSpec
from training.contract.retraining_spec import CostsSpec
from training.domain.backtest import spec_sections
from training.domain.charts import Bars, Chart, Line
from training.domain.identity import digest
from training.domain.replay import Replay
from training.settings import StateSettings
from training.steps.backtest.own_state import Place
from training.workspace import share, shared_uri

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Findings:
    """What a backtest found. By policy: its `values` of the metric [weeks], NaN where it is not defined, and its
    `costs`, only of the weeks that are `measured` for all."""

    days: Days
    weeks: Sequence[Days]
    metric: str
    price: float
    values: Mapping[str, np.ndarray]
    costs: Mapping[str, np.ndarray]
    measured: np.ndarray
    replays: Mapping[str, Replay]
    standings: Sequence[Standing]
    recommendation: Recommendation
    costs_to_declare: CostsSpec | None
    """The prices that were replayed, where the spec has none of its own."""


def publish(
    findings: Findings, inputs: BacktestInputs, place: Place, spec: ModelSpec, settings: StateSettings
) -> BacktestResult:
    """Write report.json, report.md and pictures, and log them with all numbers to MLflow. A second call adds nothing
    twice."""
    asked = inputs.model_dump(mode="json", exclude={"processes"})
    replays = [findings.replays[name] for name in sorted(findings.replays)]
    fingerprint = digest([place.folder.name, asked, findings.days, replays])
    folder = place.folder / "reports" / fingerprint
    runs = Runs(settings.tracking_uri, spec.name, str(settings.home / "mlflow"))
    tags = {"kind": "backtest", "days": str(findings.days), "config_hash": spec.config_hash}
    run = runs.begin("backtest", fingerprint, tags)
    result = BacktestResult(
        days=findings.days,
        weeks=int(findings.measured.sum()),
        metric=findings.metric,
        price=findings.price,
        standings=list(findings.standings),
        recommendation=findings.recommendation,
        report_uri=storage.join(shared_uri(settings, folder), "report.json"),
        run_id=run.run_id,
    )
    table = report(findings, spec)
    for line in table.splitlines():
        log.info("%s", line)
    atomic.write(folder / "report.json", json.dumps(_numbers(findings, result), indent=2).encode())
    atomic.write(folder / "report.md", table.encode())
    draw(folder, _charts(findings))
    share(settings, folder)
    if run.result is None:
        runs.log(run, asked | {"retraining": spec.retraining.model_dump_json()}, _metrics(findings))
        for name, values in findings.values.items():
            steps = {findings.metric: [float(each) for each in values[findings.measured]]}
            runs.log_child(run, name, {"policy": name}, steps, "finished")
        runs.log_files(run.run_id, folder)
        runs.finish(run, result.model_dump(mode="json"))
    return result


def _metrics(findings: Findings) -> dict[str, float]:
    found = {"price": findings.price}
    for each in findings.standings:
        numbers = each.model_dump(exclude={"policy", "regret_interval"})
        found |= {f"{each.policy}/{name}": float(value) for name, value in numbers.items()}
    return found


def _numbers(findings: Findings, result: BacktestResult) -> dict[str, object]:
    """What report.json holds."""
    weekly = {name: [None if np.isnan(v) else float(v) for v in each] for name, each in findings.values.items()}
    return {
        "result": result.model_dump(mode="json"),
        "weeks": [str(week.start) for week in findings.weeks],
        "values": weekly,
        "replays": {name: each.model_dump(mode="json") for name, each in findings.replays.items()},
    }


def report(findings: Findings, spec: ModelSpec) -> str:
    """The table as Markdown, and the recommendation."""
    lines = [
        f"# Backtest of {spec.name}: {findings.days}",
        "",
        f"Quality is the mean of {findings.metric} over {findings.measured.sum()} weeks. A training costs "
        f"{findings.price:.4g} of it in one week. Cost and regret are of a week; lower is better.",
        "",
        "| policy | quality | trainings | promoted | false | refused | cost | regret | 90 % interval |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {s.policy} | {s.quality:.4f} | {s.trainings} | {s.promoted} | {s.false_trainings} | {s.refused} "
        f"| {s.cost:.4f} | {s.regret:.4f} | {s.regret_interval or ''} |"
        for s in findings.standings
    ]
    recommended = findings.recommendation
    lines += ["", str(recommended)]
    if recommended.costs_more:
        sections = spec_sections(recommended.policy, findings.costs_to_declare)
        lines += ["", f"Write into the spec of {spec.name}:", ""]
        lines += [f"    {line}" for line in yaml.safe_dump(sections, sort_keys=False).splitlines()]
        lines += ["", "| other policy | costs more by, in a week |", "|---|---|"]
        lines += [f"| {name} | {each} |" for name, each in recommended.costs_more.items()]
    return "\n".join(lines) + "\n"


def _charts(findings: Findings) -> list[Chart]:
    starts = np.array([np.datetime64(week.start) for week in findings.weeks])
    best = findings.costs.get("oracle", min(findings.costs.values(), key=np.mean))
    quality = [Line(starts, values, name) for name, values in findings.values.items()]
    regret = [Line(starts[findings.measured], np.cumsum(costs - best), name) for name, costs in findings.costs.items()]
    trainings = Bars(tuple(s.policy for s in findings.standings), np.array([s.trainings for s in findings.standings]))
    return [
        Chart("quality", f"{findings.metric} by week", "week", findings.metric, tuple(quality)),
        Chart("regret", "cost above the best in hindsight, added up", "week", "cost", tuple(regret)),
        Chart("trainings", "trainings", "trainings", "", (trainings,)),
    ]
