"""The section `scoring` of a model spec: when the champion scores events in batch."""

from pydantic import Field

from training.contract.base import DayCount, Spec

#: `scoring.when`: after new data.
NEW_DATA = "new_data"


class ScoringSpec(Spec):
    """The DAG `<model>_score` writes a prediction for every event that has none to the table `predictions`."""

    when: str
    """`new_data`: each time that features of new data have been computed. Or a cron expression, UTC."""
    maximum_age_days: DayCount = 7
    """Events older than this, counted from the newest event, are scored only when a person names their partition."""
    batch_rows: int = Field(500_000, ge=1)
    """The most events that are scored and committed at once. The memory that the step needs grows with it."""
