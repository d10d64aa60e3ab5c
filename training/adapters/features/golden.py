"""Golden events: the feature code here must compute the features that the model was trained with."""

from datetime import datetime
from typing import Any

import numpy as np

from training.adapters.features.online import OTHER_CODE, Plan
from training.contract.artifact import Golden
from training.contract.errors import DataContractError
from training.contract.model_spec import ModelSpec

#: float32 values that differ by rounding are equal.
RELATIVE, ABSOLUTE = 1e-5, 1e-6
VARIES = "Make them of the event alone, without random numbers and the clock; then train again."


def golden_events(golden: Golden, spec: ModelSpec) -> list[dict[str, Any]]:
    """The golden events as a request brings them: with values of the types of the spec."""
    types = {name: column.type for name, column in spec.request_columns.items()}
    return [{name: _typed(value, types.get(name)) for name, value in event.items()} for event in golden.events]


def check_golden_features(plan: Plan, golden: Golden, spec: ModelSpec) -> None:
    """Raises DataContractError when the functions of `plan` fail or compute other features for the golden events."""
    events = golden_events(golden, spec)
    if not events:
        return
    functions = ", ".join(plan.functions)
    try:
        found = plan.replay(events, golden.batch).values
    except Exception as error:
        problem = f"The request features {functions} fail on the golden events: {type(error).__name__}: {error}"
        raise DataContractError(problem, hint=OTHER_CODE) from error
    expected = np.asarray(golden.features, np.float32)
    differ = _differ(found, expected)
    if not differ.any():
        return
    if varying := _differing(plan, found, plan.replay(events, golden.batch).values):
        problem = f"The request features {functions} make other {varying} of the same golden events each time"
        raise DataContractError(problem, hint=VARIES)
    row, column = np.argwhere(differ)[0]
    problem = (
        "The feature code here is not that of the version: "
        f"it makes {_differing(plan, found, expected)} ({functions}) otherwise. "
        f"{plan.names[column]} of golden event {golden.events[row]} is {found[row, column]:g}, "
        f"expected {expected[row, column]:g}; {differ.any(axis=1).sum()} of {len(events)} golden events differ"
    )
    raise DataContractError(problem, hint=f"{OTHER_CODE} A feature that depends on the clock is never the same.")


def _differ(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return ~np.isclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE)


def _differing(plan: Plan, found: np.ndarray, expected: np.ndarray) -> str:
    """The names of the features that differ."""
    return ", ".join(plan.names[i] for i in np.flatnonzero(_differ(found, expected).any(axis=0)))


def _typed(value: Any, kind: str | None) -> Any:
    if kind == "timestamp" and isinstance(value, str):
        return datetime.fromisoformat(value)
    if kind == "int64" and isinstance(value, float):  # pandas makes floats of whole numbers among nulls
        return int(value)
    return value
