"""The names that specs, step inputs and results have in common: of models, feeds, metrics, estimators and triggers."""

from typing import Annotated, Literal

from pydantic import Field

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]

Feed = Literal["events", "labels"]
#: A member of the registry ESTIMATORS, or `package.module:factory`. Specs also check that it is known
#: (registries.py); results of another image need not be.
EstimatorName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.-]*(:[A-Za-z_]\w*)?$")]
Metric = Literal["roc_auc", "average_precision", "card_precision_at_k"]
Trigger = Literal["first", "schedule", "drift", "performance", "new_data", "code", "person"]
#: What an estimator learns: 0 or 1, one of k classes, or a number.
Target = Literal["binary", "classes", "number"]
