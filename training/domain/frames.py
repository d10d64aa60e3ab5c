"""Names of our columns in frames that hold a spec's columns too. No column of a spec begins with an underscore."""

from typing import Final

#: Of labels: the value, and when it was reported.
LABEL: Final = "_label"
REPORTED_AT: Final = "_reported_at"
#: A holdout row that evaluation leaves out.
EXCLUDED: Final = "_excluded"

#: Of logged predictions.
PREDICTION_ID: Final = "_prediction_id"
PREDICTED_AT: Final = "_predicted_at"
DAY: Final = "_day"
VERSION: Final = "_model_version"
ROLE: Final = "_role"
PROBABILITY: Final = "_score"
FEATURE_TIMESTAMP: Final = "_feature_timestamp"
#: A list of (name, value) for each row.
LOGGED_FEATURES: Final = "_features"
