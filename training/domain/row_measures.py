"""What is known of single rows, so that groups of them can be measured: by gates of the verdict (domain/gates)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Calibrated:
    """What was predicted of n rows and what came true, [n]: over many rows with one prediction, the mean of what came
    true should be that prediction. `of`: what is predicted, in words. `inside`: whether a label is in its interval."""

    of: str
    predicted: np.ndarray
    observed: np.ndarray
    probability: bool = True
    inside: np.ndarray | None = None


@dataclass(frozen=True)
class Rate:
    """A measure by which groups of rows are compared: Σ `hits` / Σ `among`, each [n]. `of`: of which class."""

    measure: str
    hits: np.ndarray
    among: np.ndarray
    of: str = ""

    @property
    def name(self) -> str:
        return f"{self.measure} of {self.of}" if self.of else self.measure


def decision_rates(decided: np.ndarray, true: np.ndarray, of: str = "") -> list[Rate]:
    """Of rows for which something was `decided` and was `true`, 0 or 1 [n]. The names are Fairlearn's."""
    everything, decided, true = np.ones(len(true)), decided.astype(np.float64), true.astype(np.float64)
    return [
        Rate("selection_rate", decided, everything, of),
        Rate("true_positive_rate", decided * true, true, of),
        Rate("false_positive_rate", decided * (1 - true), 1 - true, of),
        Rate("error_rate", np.abs(decided - true), everything, of),
    ]
