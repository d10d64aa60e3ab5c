"""A model on an evaluation set: its scores and what they mean, so that parts of the rows can be measured."""

from dataclasses import dataclass

import numpy as np

from training.domain.task_kind import Scored, ServedTask, TaskKind


@dataclass(frozen=True)
class ScoredModel:
    task: TaskKind
    scored: Scored
    served: ServedTask

    def some(self, rows: np.ndarray) -> Scored:
        """Only `rows` (numbers), in that order."""
        return self.task.scored(self.scored.truth.some(rows), self.scored.values[rows], self.served)
