"""What is measured of a challenger beside its metrics on the holdout: the gates that need the model itself, its run, or
the history. The step `evaluate` adds them to the verdict; what they decide is in training/domain/gates.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from training import storage
from training.adapters.checkpoints import StoredCheckpoint
from training.adapters.datasets import Dataset
from training.adapters.ledger import Ledger
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry, Runs
from training.contract.artifact import ONNX_FILE
from training.contract.base import Frozen
from training.contract.errors import InputError
from training.contract.messages import Candidate, EvaluateInputs, Latency, Metrics
from training.domain.charts import Chart
from training.domain.evaluation_set import EvaluationSet
from training.domain.gates import Gate, cost, latency, leakage, robustness, stability
from training.domain.gates.column_changes import column_changes
from training.domain.rollout import ROLLOUT
from training.domain.task_kind import ServedTask, TaskKind
from training.domain.verdict import Champion
from training.fit_job import SEARCH, TRAINING, cost_tags
from training.other_seeds import OtherSeeds
from training.settings import StateSettings

log = logging.getLogger("perennial")

#: Calls before the first round: ONNX Runtime allocates its memory in them.
_WARM_UP = 20
#: Rows of the training set and of the holdout on which single features are tested, about.
_TRAIN_ROWS, _HOLDOUT_ROWS = 20_000, 10_000
#: Former champions whose metrics are compared: the newest.
_FORMER = 10

Found = tuple[Frozen | None, Iterator[Gate]]


@dataclass(frozen=True)
class Challenger:
    """A challenger, and the rows of the holdout that count: its `features` of them, float32 [n, d], and their truth."""

    candidate: Candidate
    model: OnnxModel
    features: np.ndarray
    truth: EvaluationSet
    metrics: Metrics
    task: TaskKind
    dataset: Dataset
    inputs: EvaluateInputs

    @property
    def served(self) -> ServedTask:
        return self.model.task

    @property
    def primary(self) -> str:
        return self.task.evaluation.primary


@dataclass(frozen=True)
class Examined:
    """Gates, and their evidence by the names of the verdict's fields."""

    gates: list[Gate]
    evidence: dict[str, Frozen | None]
    charts: list[Chart] = field(default_factory=list)


def examine(challenger: Challenger, champion: Champion | None, verdict: str, settings: StateSettings) -> Examined:
    """Everything that is measured. `verdict`: the id of the verdict, under which the latency is kept.

    Raises TransientError when MLflow or a store does not answer, DataContractError for a broken ledger.
    """
    spec = challenger.task.spec
    kept = storage.join(settings.work, spec.name, "checkpoints", verdict)
    runs = Runs(settings.tracking_uri, spec.name, str(settings.home / "mlflow"))
    found: dict[str, Found] = {
        "robustness": _robustness(challenger),
        "cost": _cost(challenger, runs),
        "latency": _latency(challenger, StoredCheckpoint(kept, "latency")),
        "leakage": _leakage(challenger, _former(challenger, champion, runs, settings)),
    }
    if spec.evaluation.stability.seeds:
        found["stability"] = _stability(challenger, champion, settings)
    return Examined(
        [gate for _, gates in found.values() for gate in gates], {name: each for name, (each, _) in found.items()}
    )


def _robustness(challenger: Challenger) -> Found:
    metadata, spec = challenger.model.metadata, challenger.task.spec
    events = spec.source.request_columns
    changes = column_changes(metadata.columns, metadata.features, events, challenger.features)
    section, seed = spec.evaluation.robustness, challenger.inputs.seed
    found = robustness.robustness(
        section, challenger.model.score, challenger.served, challenger.features, changes, seed
    )
    return found, robustness.gates(found)


def _cost(challenger: Challenger, runs: Runs) -> Found:
    spec, candidate = challenger.task.spec, challenger.candidate
    tags = runs.tags(candidate.run_id)
    size = storage.size(storage.join(candidate.artifact_uri, ONNX_FILE))
    search = _times(tags, SEARCH) if cost_tags(SEARCH)[0] in tags else None
    found = cost.cost(spec.retraining.costs, _times(tags, TRAINING), size, search)
    return found, cost.gates(found, spec.evaluation.cost)


def _times(tags: Mapping[str, str], what: str) -> cost.Times:
    seconds, cpu, gpu = (float(tags[name]) if name in tags else None for name in cost_tags(what))
    return seconds, cpu, gpu


def _latency(challenger: Challenger, kept: StoredCheckpoint) -> Found:
    """A measurement that kept the budget is not repeated: the step gives the same verdict again. One that did not is
    repeated: the machine may have been busy."""
    section, content = challenger.task.evaluation.latency, kept.load()
    found = None if content is None else Latency.model_validate_json(content)
    if found is None or not latency.within(found, section):
        found = latency.latency(_timed(challenger.model, challenger.features, section.rounds, section.calls))
        kept.save(found.model_dump_json().encode())
    return found, latency.gates(found, section)


def _timed(model: OnnxModel, features: np.ndarray, rounds: int, calls: int) -> np.ndarray:
    """Milliseconds of single rows, [rounds, calls]."""
    rows = [features[number % len(features)][np.newaxis] for number in range(calls)]
    for row in rows[:_WARM_UP]:
        model.score(row)
    found = np.empty((rounds, calls))
    for part in found:
        for number, row in enumerate(rows):
            began = time.perf_counter_ns()
            model.score(row)
            part[number] = time.perf_counter_ns() - began
    return found / 1e6


def _stability(challenger: Challenger, champion: Champion | None, settings: StateSettings) -> Found:
    """If the two cannot be compared, the verdict is negative anyway, so nothing is fitted."""
    metric, own, task = challenger.primary, challenger.inputs.seed, challenger.task
    comparable = champion is None or champion.differences is not None
    metadata = challenger.model.metadata
    others = OtherSeeds(challenger.candidate, metadata.parameters, task, challenger.truth, challenger.inputs)
    values, failed = others.measure(settings) if comparable else ({}, {})
    value, gain = challenger.metrics.get(metric, float("nan")), None
    if comparable and champion is not None and champion.metrics is not None:
        gain = task.rules[metric].sign * (value - champion.metrics.get(metric, float("nan")))
    found = stability.stability(metric, own, {own: value, **values}, failed, gain)
    return found, stability.gates(found, champion is not None)


def _leakage(challenger: Challenger, former: Mapping[int, float]) -> Found:
    section, task, metric = challenger.task.evaluation.leakage, challenger.task, challenger.primary
    alone, whole = ({}, {}) if section.maximum_explained is None else _explained(challenger)
    found = leakage.leakage(section, alone, whole, former)
    return found, leakage.gates(found, section, task.rules[metric], metric, challenger.metrics.get(metric))


def _explained(challenger: Challenger) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """What each feature and the whole model explain: see training/domain/gates/leakage.py."""
    task, model, random = challenger.task, challenger.model, np.random.default_rng(challenger.inputs.seed)
    known = challenger.dataset.train_sample(lambda labels: task.sample(task.truth(labels), random, _TRAIN_ROWS))
    wanted = task.sample(challenger.truth.labels, random, _HOLDOUT_ROWS)
    train = known.features(model.metadata.columns), task.predicted(task.truth(known.labels))
    features, actual = challenger.features[wanted], task.predicted(challenger.truth.labels[wanted])
    alone = leakage.explained_alone(model.metadata.columns, train, (features, actual), task.explained)
    outputs, names = challenger.served.outputs(model.score(features)), challenger.served.output_names
    # A class that the model does not know is one that it does not explain.
    whole = {
        name: task.explained(of, outputs[:, names.index(name)]) if name in names else 0.0
        for name, of in actual.items()
        if leakage.measurable(of)
    }
    return alone, whole


def _former(challenger: Challenger, champion: Champion | None, runs: Runs, settings: StateSettings) -> dict[int, float]:
    """Version → the primary metric on its own holdout, of `champion` and the newest ones before it. The ledger says
    which they are; a version that a person has refused was not one."""
    model, registry = challenger.task.spec.name, Registry(settings.tracking_uri)
    moves = [entry.body for entry in Ledger(settings.ledger).entries(model, ROLLOUT)]
    served = [int(body["version"]) for body in reversed(moves) if body.get("phase") == "finished"]
    if champion is not None and champion.version in served:
        # Later ones came after the run had begun.
        served = served[served.index(champion.version) :]
    versions, found = dict.fromkeys(served), {}
    for version in list(versions)[:_FORMER]:
        try:
            value = runs.metrics(registry.get(model, version).run_id).get(challenger.primary)
        except InputError:  # It was deleted.
            continue
        if value is not None:
            found[version] = value
    return found
