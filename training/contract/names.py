"""The names that specs, step inputs and results have in common: of models, feeds, metrics, estimators and triggers."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
#: The prediction service that serves a model whose spec names none.
DEFAULT_SERVICE = "default"

#: A member of the registry ESTIMATORS, or `package.module:factory`. Specs also check that it is known
#: (registries.py); results of another image need not be.
EstimatorName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.-]*(:[A-Za-z_]\w*)?$")]
#: An estimator and, unless it is the usual one, the window that it was fitted on.
CandidateName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.-]*(:[A-Za-z_]\w*)?( [a-z0-9_]+)?$")]
Metric = Name
Trigger = Literal["first", "schedule", "drift", "performance", "new_data", "code", "person"]
#: A kind of condition in a verdict.
GateName = Literal[
    "limits",
    "skill",
    "champion",
    "margins",
    "better",
    "slices",
    "calibration",
    "fairness",
    "fairness_change",
    "robustness",
    "cost",
    "latency",
    "stability",
    "leakage",
]
#: What an estimator learns: 0 or 1, one of k classes, or a number.
Target = Literal["binary", "classes", "number"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? ` with the most similar of the `known` names; empty when none is similar."""
    similar = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {similar[0]!r}? " if similar else ""


def _name_of_today(metric: Any) -> Any:
    return _EARLIER_METRICS.get(metric, metric) if isinstance(metric, str) else metric


#: Metrics that had another name in earlier versions.
_EARLIER_METRICS = {"card_precision_at_k": "precision_at_k"}
#: A metric in a result or an artifact, which an earlier version may have written.
StoredMetric = Annotated[Metric, BeforeValidator(_name_of_today)]
