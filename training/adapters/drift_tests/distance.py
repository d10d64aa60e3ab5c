"""The drift test `distance`: a column has drifted when the distance on Evidently's page reaches its threshold."""

from training.contract.messages import Shift
from training.contract.registries import DRIFT_TESTS
from training.domain.comparison import Side


@DRIFT_TESTS.register("distance")
def distance(reference: Side, current: Side, minimum: float) -> dict[str, Shift]:
    """No column has a p-value: see training.domain.drift.DriftTest."""
    return {}
