"""Two models of each kind of task on the same made-up rows."""

from typing import Any

import numpy as np

from training.contract.model_spec import load_model_spec
from training.domain.evaluation_set import EvaluationSet
from training.domain.gates.scored_model import ScoredModel
from training.domain.task_kind import ServedTask, TaskKind, task_of
from training.domain.tasks.binary import ServedBinary
from training.domain.tasks.multiclass import ServedMulticlass
from training.domain.tasks.regression import ServedRegression

KINDS = ("binary", "multiclass", "regression")
_MODELS = {"binary": "card_fraud", "multiclass": "flight_outcome", "regression": "flight_delay"}
_SERVED: dict[str, ServedTask] = {
    "binary": ServedBinary(0.5),
    "multiclass": ServedMulticlass(("a", "b", "c")),
    "regression": ServedRegression(2.0, 0.9),
}


def task(kind: str) -> TaskKind:
    return task_of(load_model_spec(_MODELS[kind]))


class Made:
    """n rows with three numbers that decide the label; entities of ten rows each."""

    def __init__(self, kind: str, n: int = 4000, seed: int = 0, entities: Any = "ten rows each") -> None:
        self.kind, self.n, self.random = kind, n, np.random.default_rng(seed)
        self.task = task(kind)
        self.features = self.random.normal(size=(n, 3)).astype(np.float32)
        self.odds = 1.5 * self.features[:, 0] + self.features[:, 1] - 0.5
        owners = self.random.integers(0, max(n // 10, 1), n) if isinstance(entities, str) else entities
        self.labels = self._labels()
        self.truth = EvaluationSet.of(self.labels, owners, np.arange(n) * 14 // n)

    def _labels(self) -> np.ndarray:
        if self.kind == "regression":
            return self.odds + self.random.normal(size=self.n)
        if self.kind == "binary":
            return (self.random.random(self.n) < 1 / (1 + np.exp(-self.odds))).astype(np.int64)
        drawn = [self.random.choice(3, p=row) for row in self._shares(self.odds)]
        return np.array(["a", "b", "c"], dtype=object)[drawn]

    @staticmethod
    def _shares(odds: np.ndarray) -> np.ndarray:
        raised = np.exp(np.column_stack([odds, -odds, np.zeros(len(odds))]))
        return raised / raised.sum(axis=1, keepdims=True)

    def model(self, noise: float = 0.3, worse_where: np.ndarray | None = None) -> ScoredModel:
        """A model that knows the odds up to `noise`, and has none of them in the rows `worse_where`."""
        odds = self.odds + noise * self.random.normal(size=self.n)
        if worse_where is not None:
            odds = np.where(worse_where, self.random.permutation(odds), odds)
        scores = {"binary": 1 / (1 + np.exp(-odds)), "multiclass": self._shares(odds), "regression": odds}[self.kind]
        served = _SERVED[self.kind]
        return ScoredModel(self.task, self.task.scored(self.truth, scores.astype(np.float32), served), served)
