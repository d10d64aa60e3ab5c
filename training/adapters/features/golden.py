"""Golden events: check that the feature code here computes the features that the model was trained with."""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from training.adapters.features.feature_plan import OTHER_CODE, FeaturePlan
from training.contract.artifact import Golden
from training.contract.errors import DataContractError
from training.contract.model_spec import Column, ModelSpec

#: Tolerances: float32 values that differ only by rounding are equal.
RELATIVE, ABSOLUTE = 1e-5, 1e-6
#: Kind of a column → how its values are read from the text that JSON has of them.
_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
}
NOT_REPEATABLE = "Compute them from the event alone, without random numbers or the clock, then train again."


def golden_events(golden: Golden, spec: ModelSpec) -> list[dict[str, Any]]:
    """The golden events with values in the types of the spec, as in a request."""
    columns = spec.request_columns
    return [{name: _typed(value, columns.get(name)) for name, value in event.items()} for event in golden.events]


def check_golden_features(plan: FeaturePlan, golden: Golden, spec: ModelSpec) -> None:
    """Raises DataContractError when the functions of `plan` fail on the golden events or compute other features."""
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
        problem = (
            f"The request features {functions} compute other values of {varying} each time for the same golden events"
        )
        raise DataContractError(problem, hint=NOT_REPEATABLE)
    row, column = np.argwhere(differ)[0]
    problem = (
        "The feature code here differs from the code of the version: "
        f"it computes other values of {_differing(plan, found, expected)} ({functions}). "
        f"{plan.names[column]} of golden event {golden.events[row]} is {found[row, column]:g}, "
        f"expected {expected[row, column]:g}; {differ.any(axis=1).sum()} of {len(events)} golden events differ"
    )
    raise DataContractError(problem, hint=f"{OTHER_CODE} A feature must not depend on the clock.")


def _differ(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return ~np.isclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)


def _differing(plan: FeaturePlan, found: np.ndarray, expected: np.ndarray) -> str:
    """The names of the features that differ."""
    return ", ".join(plan.names[i] for i in np.flatnonzero(_differ(found, expected).any(axis=0)))


def _typed(value: Any, column: Column | None) -> Any:
    kind = None if column is None else column.kind
    if isinstance(value, str) and kind in _FROM_TEXT:
        return _FROM_TEXT[kind](value)
    if kind == "int" and isinstance(value, float):  # pandas turns integers among nulls into floats
        return int(value)
    return value
