"""Names of our columns in frames that also have the spec's columns, whose names never begin with an underscore."""

from typing import Final

#: Columns of labels: the value, and when it was reported.
LABEL: Final = "_label"
REPORTED_AT: Final = "_reported_at"
#: Whether evaluation leaves out a holdout row.
EXCLUDED: Final = "_excluded"

#: Columns of logged predictions.
PREDICTION_ID: Final = "_prediction_id"
PREDICTED_AT: Final = "_predicted_at"
DAY: Final = "_day"
VERSION: Final = "_model_version"
ROLE: Final = "_role"
PROBABILITY: Final = "_score"
FEATURE_TIMESTAMP: Final = "_feature_timestamp"
#: A list of (name, value) for each row.
LOGGED_FEATURES: Final = "_features"
