"""What is fitted, on which rows, and its identity. The steps `search` and `train` share it."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from training.adapters.datasets import Dataset
from training.adapters.processes import Processes
from training.adapters.registry import table_tags
from training.code import fitting_digest, training_code
from training.contract.artifact import SCHEMA_VERSION
from training.contract.messages import FitInputs, SearchResult, TrainingWindow, TrainInputs
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.search_spec import SearchSpec
from training.domain.identity import fit_id
from training.domain.task_kind import Fitting, TaskKind, task_of
from training.estimators import base
from training.estimators.base.calibration import fit_calibrated
from training.settings import StateSettings

log = logging.getLogger("perennial")
#: What has a cost: a training as a whole, and the search for parameters in it.
TRAINING, SEARCH = "training", "search"


@dataclass(frozen=True)
class FitJob:
    """What is fitted, on what, and by which processes."""

    inputs: FitInputs
    spec: ModelSpec
    task: TaskKind
    dataset: Dataset
    estimator: base.Estimator
    parameters: dict[str, Any]
    processes: Processes

    @classmethod
    def of(cls, inputs: FitInputs, settings: StateSettings) -> "FitJob":
        spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
        task, estimator = task_of(spec), base.load(inputs.estimator)
        given = {**spec.training.estimators.get(inputs.estimator, {}), **inputs.parameters}
        return cls(
            inputs,
            spec,
            task,
            Dataset(inputs.dataset_uri, spec),
            estimator,
            base.parameters_for(inputs.estimator, estimator, task.target, given),
            Processes.here() if estimator.DISTRIBUTED else Processes(),
        )

    @property
    def search(self) -> SearchSpec | None:
        """The search for parameters of this estimator, if the spec asks for one."""
        search = self.spec.training.search
        return search if search and self.inputs.estimator in search.spaces else None

    @property
    def searched(self) -> list[SearchResult] | None:
        """What the parts of the estimator's search found, in their order; None: they did not run as steps."""
        if not isinstance(self.inputs, TrainInputs) or self.inputs.searched is None:
            return None
        ours = [found for found in self.inputs.searched if found.estimator == self.inputs.estimator]
        return sorted(ours, key=lambda found: found.part)

    @property
    def fingerprint(self) -> str:
        """What identifies the fit: two jobs with the same one give the same model."""
        parameters, libraries = self.parameters, self.estimator.LIBRARIES
        if search := self.search:
            space = {name: each.model_dump() for name, each in search.spaces[self.inputs.estimator].items()}
            parameters = {**parameters, "search": {**search.model_dump(exclude={"spaces"}), "space": space}}
            if self.searched is not None:
                # They decide which is the best, and parts may have dropped out.
                decides = {"part", "trial", "parameters", "value"}
                parameters["searched"] = [found.model_dump(include=decides) for found in self.searched]
            libraries = (*libraries, "optuna")
        if self.spec.training.calibration != "none":
            libraries = (*libraries, "scikit-learn")
        return fit_id(
            self.spec,
            self.dataset.manifest.dataset_id,
            self.inputs.estimator,
            parameters,
            self.inputs.seed,
            fitting_digest([self.inputs.estimator]),
            {name: version(name) for name in libraries},
            SCHEMA_VERSION,
            self.inputs.window,
        )

    @property
    def window(self) -> TrainingWindow:
        """The days that are fitted. Raises InputError when the dataset has no such window."""
        return self.dataset.window(self.inputs.window)

    @property
    def searching(self) -> "FitJob":
        """The job whose rows a search tries parameters on: those of the first window, whatever is fitted then. Other
        windows may be too short for the folds, and all are compared with the same parameters."""
        first = self.dataset.manifest.all_windows[0].name
        return replace(self, inputs=self.inputs.model_copy(update={"window": first}))

    def fit(self, rows: "TrainingRows", checkpoint: base.Checkpoint) -> tuple[base.Fitted, float]:
        """The fitted estimator and the seconds that fitting took: those of the last try, when it was resumed."""
        inputs, parameters = self.inputs, self.parameters
        count = len(rows.data.labels)
        log.info("Fitting %s on %d rows of %s: %s", inputs.estimator, count, self.window.days, parameters)
        started = time.monotonic()
        calibration = self.spec.training.calibration
        if calibration == "none":
            fitted = self.estimator.fit(rows.data, parameters, inputs.seed, checkpoint)
        else:
            fitted = fit_calibrated(self.estimator, rows.data, parameters, inputs.seed, calibration, checkpoint)
        seconds = time.monotonic() - started
        log.info("Fitted in %.1f s on %s", seconds, fitted.device)
        return fitted, seconds

    def tags(self, settings: StateSettings) -> dict[str, str]:
        """Of the job's run in MLflow."""
        manifest = self.dataset.manifest
        tags = {
            "estimator": self.inputs.estimator,
            "reason": self.inputs.reason,
            "dataset_id": manifest.dataset_id,
            "as_of": str(manifest.as_of),
            "train_days": str(self.window.days),
            "holdout_days": str(manifest.holdout.days),
            "window": self.inputs.window,
            "config_hash": self.spec.config_hash,
            "git_sha": settings.git_sha or "",
            "training_code": training_code(settings, self.spec),
        }
        return tags | table_tags(manifest.table_versions)


@dataclass(frozen=True)
class TrainingRows:
    """What is fitted; and features and labels of the rows after them, if the task asks for some that the fit does not
    see."""

    data: base.TrainingData
    classes: tuple[str, ...]
    kept_out: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, job: FitJob) -> "TrainingRows":
        """Raises DataContractError for rows that no model can be fitted on."""
        rows, columns = job.dataset.train_on(job.inputs.window), job.dataset.columns()
        features, truth = rows.features(columns), job.task.truth(rows.labels)
        fitted = len(truth) - job.task.calibration_rows(len(truth))
        labels, classes = job.task.encode(truth[:fitted])
        data = base.TrainingData(features[:fitted], labels, columns, job.task.target)
        data.check()
        if fitted == len(truth):
            return cls(data, classes, None)
        base.check_features(features[fitted:], columns)
        return cls(data, classes, (features[fitted:], truth[fitted:]))

    def fitting(self, holdout_scores: np.ndarray, score: Callable[[np.ndarray], np.ndarray]) -> Fitting:
        """What the task decides by. `score` gives the fitted model's scores of features."""
        calibration = None if self.kept_out is None else (self.kept_out[1], score(self.kept_out[0]))
        return Fitting(self.classes, holdout_scores, calibration)


@dataclass(frozen=True)
class Spent:
    """What a training has taken since it began: wall seconds, and CPU seconds of this process."""

    seconds: float
    cpu_seconds: float

    @classmethod
    def now(cls) -> "Spent":
        """Since the process started, with its child processes that have ended."""
        used = os.times()
        return cls(time.monotonic(), used.user + used.system + used.children_user + used.children_system)

    def since(self, began: "Spent") -> "Spent":
        return Spent(self.seconds - began.seconds, self.cpu_seconds - began.cpu_seconds)

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def tags(self, what: str, processes: int, device: str) -> dict[str, str]:
        """Tags of the run: what `what` took. `processes` fitted together, which all did the same work; each has a GPU
        of its own, if `device` is one."""
        gpu_seconds = self.seconds * processes if device != "cpu" else 0.0
        numbers = (self.seconds, self.cpu_seconds * processes, gpu_seconds)
        return {name: f"{number:.3f}" for name, number in zip(cost_tags(what), numbers, strict=True)}


def cost_tags(what: str) -> tuple[str, str, str]:
    """The tags of a run with the seconds, CPU seconds and GPU seconds that TRAINING or SEARCH took."""
    return f"{what}_seconds", f"{what}_cpu_seconds", f"{what}_gpu_seconds"
