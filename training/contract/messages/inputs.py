"""What every step's inputs have in common."""

from training.contract.base import Frozen
from training.contract.names import Metric, Name

Metrics = dict[Metric, float]


class StepInputs(Frozen):
    model: Name
