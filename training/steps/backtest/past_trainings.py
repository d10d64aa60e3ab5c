"""Trainings and verdicts of the past, by the steps that the live loop runs, in the backtest's own state."""

from datetime import date
from functools import lru_cache
from itertools import product
from typing import Any

from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry
from training.contract import messages as m
from training.contract.base import Frozen
from training.contract.errors import DataContractError, InputError, StepError, TransientError
from training.contract.steps import step_spec
from training.steps.backtest.own_state import Place


class Training(Frozen):
    """A training as of `day`: its candidates, and the best of them on the holdout."""

    day: date
    change: date | None = None
    """The change that it learns from what came after."""
    failed: str = ""
    """Why there is no challenger. All that follows is empty then."""
    dataset_uri: str = ""
    seed: int = 0
    candidates: list[m.Candidate] = []
    dropped_out: dict[str, str] = {}
    challenger: m.Candidate | None = None
    first: m.Verdict | None = None
    """The verdict on it when there is no champion yet."""
    version: int = 0
    """Its number in the backtest's registry."""

    @property
    def id(self) -> str:
        return training_name(self.day, self.change)


def training_name(day: date, change: date | None) -> str:
    return f"{day}-since-{change}" if change else str(day)


def train(place: Place, day: date, change: date | None, estimators: list[str]) -> Training:
    """Train `estimators` as of `day` on each of the training windows. The best is registered, so that a later
    challenger can be compared with it.

    A training for which data or labels do not suffice has failed, as it would have in the live loop. Raises
    TransientError when a retry may help.
    """
    snapshot = m.Snapshot(as_of=day, table_versions=place.versions)
    try:
        dataset: m.DatasetResult = _step(place, "dataset", snapshot=snapshot, change=change)
        given = {"dataset_uri": dataset.uri, "seed": dataset.seed}
        candidates, dropped_out = [], dict[str, str]()
        for window, name in product((each.name for each in dataset.all_windows), estimators):
            fit = {**given, "estimator": name, "window": window, "reason": "backtest"}
            try:
                trained: m.TrainResult = _step(place, "train", **fit)
            except TransientError:
                raise
            except StepError as error:
                dropped_out[f"{name} {window}".strip()] = error.message
            else:
                candidates.append(m.Candidate(**trained.model_dump(include=set(m.Candidate.model_fields))))
        judged = {**given, "candidates": candidates, "dropped_out": dropped_out}
        evaluated: m.EvaluateResult = _step(place, "evaluate", snapshot=snapshot, **judged)
    except (DataContractError, InputError) as error:
        return Training(day=day, change=change, failed=error.message)
    best = evaluated.challenger
    # Not by the step: its page, its approvals and its look at the live predictions are for versions that may serve.
    registered = Registry(place.settings.tracking_uri).register(place.model, best.run_id, best.digest, {})
    found = {"challenger": best, "first": evaluated.verdict, "version": registered.version}
    return Training(day=day, change=change, **judged, **found)


def judge(place: Place, training: Training, champion: Training) -> m.Verdict:
    """The verdict of the step evaluate on a training, when the challenger of `champion` is in service."""
    snapshot = m.Snapshot(as_of=training.day, table_versions=place.versions, champion_version=champion.version)
    kept = training.model_dump(include={"dataset_uri", "seed", "candidates", "dropped_out"})
    evaluated: m.EvaluateResult = _step(place, "evaluate", snapshot=snapshot, **kept)
    return evaluated.verdict


def model_of(place: Place, training: Training) -> OnnxModel:
    """The challenger of a training that has one."""
    assert training.challenger is not None
    return _loaded(training.challenger.artifact_uri, place.settings.artifact_maximum_mib)


@lru_cache(maxsize=32)
def _loaded(artifact_uri: str, maximum_mib: int) -> OnnxModel:
    return OnnxModel.load(artifact_uri, maximum_mib=maximum_mib)


def _step(place: Place, name: str, **inputs: Any) -> Any:
    spec = step_spec(name)
    return spec.load()(spec.inputs.model_validate({"model": place.model, **inputs}), place.settings)
