"""The names that specs, step inputs and results have in common: of models, feeds, metrics, estimators and triggers."""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

#: `[0-9]`, because \d also matches digits of other scripts.
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
#: So many days or hours.
WINDOW_PATTERN = r"^[1-9][0-9]{0,4}[dh]$"
TRAINING_WINDOW_PATTERN = r"^([1-9][0-9]{0,4}d|expanding|half_life_[1-9][0-9]{0,3}d)$"
PARTITION_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(_[0-9]{4}-[0-9]{2}-[0-9]{2})?$"
#: PostgreSQL, which holds them for Airflow and MLflow, takes no NUL.
TEXT_PATTERN = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
#: What error messages say instead of a pattern.
PATTERNS: Final[Mapping[str, str]] = {
    NAME_PATTERN: "a name (a-z, digits and underscores, a letter first)",
    WINDOW_PATTERN: "so many days or hours, such as 7d or 12h",
    TRAINING_WINDOW_PATTERN: "so many days such as 90d, or expanding, or half_life_30d",
    PARTITION_PATTERN: "a day or two, such as 2026-01-05 or 2026-01-05_2026-01-18",
    TEXT_PATTERN: "text without control characters",
    QUANTITY_PATTERN: "a quantity of Kubernetes, such as 500m, 2 or 4Gi",
}
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Text = Annotated[str, Field(pattern=TEXT_PATTERN)]
#: A text that needs no quotes in a message.
_WORDS = re.compile(r"[\w.+/-]+( [\w.+/-]+)*")
#: So many values of a list are named in a message.
MOST_LISTED = 50
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


def more_than_once(values: Iterable[Hashable]) -> list[Any]:
    """The repeated values, each once, in their order."""
    return [value for value, times in Counter(values).items() if times > 1]


def listed(values: Collection[Any]) -> str:
    """The values of a list for a message, separated by commas. Of a long list the first MOST_LISTED, and their number.

    A message may be kept with each row that it is about.
    """
    first = ", ".join(map(shown, islice(values, MOST_LISTED)))
    return first if len(values) <= MOST_LISTED else f"{first}, … ({len(values):,} values)"


def shown(value: Any) -> str:
    """A value for a message. A text is quoted if it could be read as something else: as two values, or as none.

    No semicolon is in it, because semicolons separate the reasons of a quarantined row.
    """
    if not isinstance(value, str) or _WORDS.fullmatch(value):
        return str(value)
    return repr(value).replace(";", r"\x3b")


def _name_of_today(metric: Any) -> Any:
    return _EARLIER_METRICS.get(metric, metric) if isinstance(metric, str) else metric


#: Metrics that had another name in earlier versions.
_EARLIER_METRICS = {"card_precision_at_k": "precision_at_k"}
#: A metric in a result or an artifact, which an earlier version may have written.
StoredMetric = Annotated[Metric, BeforeValidator(_name_of_today)]
