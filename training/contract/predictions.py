"""A scored row, as the service logs it and the table `predictions` keeps it: names and roles, one place for both.

Three parts that cannot collide: the event as it came (`event`), the features that the model was given (`features`), and
ours, which are the other columns. See training/domain/predictions.py for the table's types.
"""

from datetime import datetime
from typing import Any, Final, Literal, TypedDict

#: Who scored the row. `shadow` scored it beside the answer, and nobody acted on it.
Role = Literal["champion", "challenger", "previous", "pinned", "shadow"]
SHADOW: Final[Role] = "shadow"
#: The roles between which a rollout divides the traffic; a pinned version was chosen by the caller.
ROUTED: Final[tuple[Role, ...]] = ("champion", "challenger")

Decision = Literal["flag", "pass"]
#: The output of a binary model: the probability of the positive class.
SCORE: Final = "score"


class LoggedRow(TypedDict):
    """One line of the spool. `*_names` are JSON lists, made once per version; `*_values` are numbers in their order.

    The shipper makes of them the columns `outputs` and `features`, and `day` of the event's time.
    """

    prediction_id: str
    """A shadow's row has that of the answer which it stood beside."""
    predicted_at: datetime
    model_version: int
    role: str
    decision: Decision
    features_defaulted: bool
    feature_timestamp: datetime | None
    latency_seconds: float
    replica: str
    output_names: str
    output_values: Any
    event: dict[str, Any]
    feature_names: str
    feature_values: Any
