"""A prediction: as the service answers it over HTTP, and as it logs it.

These records are dicts with a declared type, because the service makes one for every scored row: a dict literal costs
a fifth of a validated model or a frozen dataclass. mypy checks the code that builds them, pydantic checks what is
read, and the OpenAPI document has their schema.

The table `predictions` keeps a logged row in three parts that cannot collide: the event as it came (`event`), the
features that the model was given (`features`), and our own columns. training/domain/predictions.py has its types.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NotRequired

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

#: Why a version answered: its alias, or the caller pinned the request to it.
AnsweringRole = Literal["champion", "challenger", "previous", "pinned"]
#: Why a version scored a row. A `shadow` scores beside the version that answers, and its score is only logged.
Role = Literal[AnsweringRole, "shadow"]
SHADOW: Final[Role] = "shadow"
#: The roles between which a rollout divides the traffic. A pinned version was chosen by the caller.
ROUTED: Final[tuple[Role, ...]] = ("champion", "challenger")

#: The `replica` of a prediction that was made in batch begins with it. The run's id follows, after a colon.
BATCH: Final = "batch"

#: The decisions of a binary model.
ALERT: Final = "alert"
PASS: Final = "pass"


def raise_alerts(*decisions: Mapping[str, int]) -> bool:
    """Whether these counts of decisions are those of a task that raises alerts.

    A class of another task may be named like one of the two decisions.
    """
    made = set[str]().union(*decisions)
    return bool(made) and made <= {ALERT, PASS}


#: The output of a binary model: the probability of the positive class.
SCORE: Final = "score"

_CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


@with_config(_CONFIG)
class Explanation(TypedDict):
    """What each feature adds to `base_score`. Contributions and base score sum to the output that is explained."""

    method: str
    output: str
    """The output that is explained: the score, the number, or the likeliest class, whose probability it is."""
    base_score: float
    """The mean of that output over the model's reference rows."""
    contributions: dict[str, float]


@with_config(ConfigDict(**{**_CONFIG, "extra": "allow"}))
class Prediction(TypedDict):
    """The answer for one row, without the fields of the task's kind: those are `TaskKind.answer_schema`."""

    prediction_id: str
    model: str
    model_version: int
    role: AnsweringRole
    """Why this version answered: its alias, or `pinned` when the caller chose it."""
    feature_timestamp: datetime | None
    """Time of the oldest feature row that was used; null when the online store has none for an entity of the event."""
    features_defaulted: bool
    """True when features are defaults: an entity is unknown, or the online store could not be used."""
    decision: NotRequired[str]
    """Only where the task makes decisions."""
    explanation: NotRequired[Explanation]
    """Only where the request asked for it."""


@with_config(_CONFIG)
class Predictions(TypedDict):
    """The answer for several rows, in their order."""

    predictions: list[Prediction]


class LoggedRows(TypedDict):
    """One line of the prediction log on a replica's disk: rows that one version scored as one role, column by column.

    The first fields are of all rows, the others have a value for each row. `*_names` are JSON lists, made once per
    version; `*_values` are the numbers of all rows, in the order of the names, one row after the other. The log makes
    the columns `outputs` and `features` of them when it ships the line to the lake, and `day` of the event's time.
    """

    model_version: int
    model_digest: str
    """The SHA-256 of the version's model.onnx: a registry restored from an older copy may reuse a number."""
    role: Role
    replica: str
    output_names: str
    feature_names: str
    prediction_id: list[str]
    """A shadow's row has the id of the answer beside which it was scored."""
    predicted_at: list[datetime]
    decision: list[str]
    """Empty where the task makes none."""
    features_defaulted: list[bool]
    feature_timestamp: list[datetime | None]
    latency_seconds: list[float]
    event: dict[str, Sequence[Any]]
    output_values: Any
    feature_values: Any


_PREDICTION, _PREDICTIONS = TypeAdapter(Prediction), TypeAdapter(Predictions)


def read_prediction(answer: bytes) -> Prediction:
    """The answer of `POST /predict`. Raises ValueError when it is not a prediction."""
    return _PREDICTION.validate_json(answer)


def read_predictions(answer: bytes) -> list[Prediction]:
    """The answer of `POST /predict_batch`. Raises ValueError when it is not a list of predictions."""
    return _PREDICTIONS.validate_json(answer)["predictions"]
