"""Fit a challenger again with other seeds, and measure what comes out on the same holdout.

Each seed that is finished is kept, so a killed step continues with the next one, and a backtest, which holds one
challenger against several champions, fits each once.
"""

import json
import logging
from dataclasses import dataclass
from typing import Any

from training import storage
from training.adapters.checkpoints import StoredCheckpoint
from training.adapters.onnx_model import OnnxScorer
from training.contract.errors import TransientError
from training.contract.messages import Candidate, EvaluateInputs, FitInputs
from training.domain.evaluation_set import EvaluationSet
from training.domain.task_kind import TaskKind
from training.fit_job import FitJob, TrainingRows
from training.settings import StateSettings

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class OtherSeeds:
    """The fits of one challenger with the seeds after its own."""

    candidate: Candidate
    parameters: dict[str, Any]
    """Those that the challenger was fitted with, also when a search found them."""
    task: TaskKind
    truth: EvaluationSet
    inputs: EvaluateInputs

    def measure(self, settings: StateSettings) -> tuple[dict[int, float], dict[int, str]]:
        """Seed → the primary metric, and seed → why its fit failed.

        A fit that failed is tried again when the step runs again. Raises TransientError when a store does not answer.
        """
        values: dict[int, float] = {}
        failed: dict[int, str] = {}
        for seed in range(self.inputs.seed + 1, self.inputs.seed + 1 + self.task.evaluation.stability.seeds):
            try:
                job = self._job(seed, settings)
                values[seed] = self._kept_or_fitted(job, settings)
                log.info("Seed %d: %s %.4f", seed, self.task.evaluation.primary, values[seed])
            except TransientError:
                raise
            except Exception as error:  # Whatever an estimator raises: the gate fails and says it.
                log.warning("The fit with seed %d failed", seed, exc_info=True)
                failed[seed] = " ".join(f"{type(error).__name__}: {error}".split())
        return values, failed

    def _job(self, seed: int, settings: StateSettings) -> FitJob:
        inputs = FitInputs(
            model=self.inputs.model,
            dataset_uri=self.inputs.dataset_uri,
            seed=seed,
            estimator=self.candidate.estimator,
            window=self.candidate.window,
            parameters=self.parameters,
        )
        return FitJob.of(inputs, settings)

    def _kept_or_fitted(self, job: FitJob, settings: StateSettings) -> float:
        """The primary metric. It is kept by the identity of the fit, which has the dataset and the metric in it."""
        folder = storage.join(settings.work, job.spec.name, "checkpoints", job.fingerprint)
        kept = StoredCheckpoint(folder, "metric")
        if (content := kept.load()) is None:
            content = json.dumps(self._fitted(job, StoredCheckpoint(folder))).encode()
            kept.save(content)
        return float(json.loads(content))

    def _fitted(self, job: FitJob, checkpoint: StoredCheckpoint) -> float:
        rows = TrainingRows.of(job)
        fitted, _ = job.fit(rows, checkpoint)
        scorer = OnnxScorer(fitted.onnx())
        holdout = job.dataset.holdout()
        scores = scorer.score(holdout.features(rows.data.columns))
        served = self.task.fit(rows.fitting(scores, scorer.score))
        checkpoint.remove()
        return self.task.scored(self.truth, scores[holdout.evaluated], served).value(self.task.evaluation.primary)
