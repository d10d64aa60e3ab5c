"""Protocol A with parameters that were searched for on the weeks before the test week (protocol_a.py).

The search sees the five weeks that end with protocol A's training week. Each of its three folds is as protocol A: train
on seven days, leave out the seven days whose labels were not known, validate on the next seven. The best parameters are
then fitted twice: on protocol A's training week, which is what the published results had, and on all five weeks.
"""

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from benchmarks.handbook.protocol_a import (
    AS_OF,
    METRICS,
    MODEL,
    PUBLISHED,
    WINDOW_DAYS,
    Loop,
    history_start,
    settings_under,
)
from training.contract import messages as m
from training.contract.artifact import METADATA_FILE, ArtifactMetadata
from training.contract.model_spec import MODELS_DIR, Metric

SEARCH_DAYS = 35
GOALS: dict[Metric, float] = {"average_precision": 0.68, "roc_auc": 0.876}
#: Around each estimator's defaults, which are the first trial.
SPACES: dict[str, dict[str, dict[str, Any]]] = {
    "hist_gradient_boosting": {
        "max_iter": {"low": 50, "high": 400, "step": 50},
        "learning_rate": {"low": 0.01, "high": 0.2, "log": True},
        "max_leaf_nodes": {"low": 4, "high": 32},
        "min_samples_leaf": {"low": 5, "high": 200, "log": True},
        "l2_regularization": {"low": 0.01, "high": 100.0, "log": True},
        "max_features": {"low": 0.2, "high": 1.0},
        "positive_weight": {"low": 1.0, "high": 30.0, "log": True},
    },
    "random_forest": {
        "n_estimators": {"choices": [100, 200]},
        "max_depth": {"low": 6, "high": 18},
        "min_samples_leaf": {"low": 1, "high": 50, "log": True},
        "max_features": {"low": 0.1, "high": 0.7},
    },
    "logistic_regression": {"C": {"low": 0.0001, "high": 10.0, "log": True}},
}


@dataclass(frozen=True)
class _Searched:
    """The results of the fits on five weeks, and on protocol A's week with the parameters that were found."""

    five_weeks: m.EvaluateResult
    protocol: m.EvaluateResult
    parameters: dict[str, dict[str, Any]]
    summaries: dict[str, str]


def run(data: Path, home: Path, trials: int, minutes: float) -> str:
    """Search, fit and judge; returns the report. `trials` and `minutes`: the budget of each estimator."""
    models = home / "models"
    models.mkdir()
    spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    spec["training"] |= {
        "window_days": SEARCH_DAYS,
        "estimators": {name: {} for name in SPACES},
        "search": {"trials": trials, "minutes": minutes, "folds": 3, "train_days": WINDOW_DAYS, "spaces": SPACES},
    }
    (models / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
    settings = settings_under(home)
    searching = Loop(settings.model_copy(update={"models_dir": models}))
    searching.land(data, history_start(AS_OF, SEARCH_DAYS), AS_OF - timedelta(days=8))
    on_five_weeks = searching.train(searching.dataset(AS_OF, SEARCH_DAYS), list(SPACES))
    parameters = {name: _parameters(result) for name, result in searching.trained.items()}
    plain = Loop(settings)
    # Both are judged on protocol A's holdout. That of the five weeks leaves out more cards, known for longer.
    week = plain.dataset(AS_OF, WINDOW_DAYS)
    protocol = plain.evaluate(week, plain.train(week, list(parameters), parameters))
    five_weeks = plain.evaluate(week, on_five_weeks)
    summaries = {name: _summary(settings.tracking_uri, result.run_id) for name, result in searching.trained.items()}
    seconds = searching.watch.seconds | {f"{name} again": took for name, took in plain.watch.seconds.items()}
    return _report(_Searched(five_weeks, protocol, parameters, summaries), seconds)


def _parameters(result: m.TrainResult) -> dict[str, Any]:
    metadata = ArtifactMetadata.model_validate_json(Path(result.artifact_uri, METADATA_FILE).read_text())
    return {name: metadata.parameters[name] for name in SPACES[result.estimator]}


def _summary(tracking_uri: str, run_id: str) -> str:
    from training.adapters.registry import Runs

    with tempfile.TemporaryDirectory() as unused:
        tags = Runs(tracking_uri, MODEL, unused).tags(run_id)
    return f"{tags['search']}; best: {tags['search_best']}"


def _report(found: _Searched, seconds: dict[str, float]) -> str:
    lines = [
        f"Protocol A, {found.protocol.scored_rows} test payments, parameters searched for on the weeks before.",
        "Found, fitted on protocol A's week / found, fitted on five weeks / published.",
        "",
        "| estimator | AUC ROC | average precision | card precision@100 |",
        "|---|---|---|---|",
    ]
    for name in found.parameters:
        _, published = PUBLISHED[name]
        columns = [
            found.protocol.metrics[name],
            found.five_weeks.metrics[name],
            dict(zip(METRICS, published, strict=True)),
        ]
        cells = [" / ".join(f"{column[metric]:.3f}" for column in columns) for metric in METRICS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| estimator | trials | parameters found |", "|---|---|---|"]
    lines += [f"| {name} | {found.summaries[name]} | {given} |" for name, given in found.parameters.items()]
    lines += ["", "| goal | fitted on protocol A's week | fitted on five weeks |", "|---|---|---|"]
    for metric, goal in GOALS.items():
        best = [max(each.metrics[name][metric] for name in each.metrics) for each in (found.protocol, found.five_weeks)]
        lines.append(f"| {metric} ≥ {goal} | {best[0]:.4f} | {best[1]:.4f} |")
    dropped = found.five_weeks.dropped_out | found.protocol.dropped_out
    lines += [f"\n{name} dropped out: {why}" for name, why in dropped.items()]
    lines += ["", "| step | seconds |", "|---|---|"]
    lines += [f"| {name} | {took:.1f} |" for name, took in seconds.items()]
    return "\n".join(lines)
