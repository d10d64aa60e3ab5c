"""The features of a payment itself. The spec card_payments.yaml declares the feature tables."""

import numpy as np
import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, UnixTimestamp

from training.adapters.features.declared_views import declared_views

#: The generated views, in the order of the spec.
customer_features, terminal_features = declared_views(__file__)

payment = RequestSource(
    name="payment",
    schema=[Field(name="amount", dtype=Float64), Field(name="event_time", dtype=UnixTimestamp)],
)


@on_demand_feature_view(
    name="request_features",
    sources=[customer_features, payment],
    schema=[
        Field(name="payment_amount", dtype=Float32, description="In the currency of the account"),
        Field(name="weekend", dtype=Float32, description="1 on Saturday and Sunday, UTC"),
        Field(name="night", dtype=Float32, description="1 from 00:00 to 06:59, UTC"),
        Field(name="amount_over_mean_7d", dtype=Float32, description="Amount over the customer's mean of 7 days"),
        Field(name="amount_over_mean_30d", dtype=Float32, description="Amount over the customer's mean of 30 days"),
    ],
)
def request_features(inputs: pd.DataFrame) -> pd.DataFrame:
    """The features that are computed from the payment itself, in training and in serving.

    Takes columns by name and returns the same type. Training and serving pass a dict of arrays, because for one row
    pandas takes many times as long as the arithmetic. Feast itself passes a DataFrame, and requires it in the
    signature.

    A customer without payments in the window has no mean. The ratio is then 1, as for an average payment.
    """
    hours = np.asarray(inputs["event_time"], "datetime64[s]").astype(np.int64) // 3600
    amount = np.asarray(inputs["amount"], np.float64)
    columns = {
        "payment_amount": amount,
        # 1970-01-01 was a Thursday.
        "weekend": (hours // 24 + 3) % 7 >= 5,
        "night": hours % 24 <= 6,
    }
    for window in ("7d", "30d"):
        mean = np.asarray(inputs[f"customer_mean_{window}"], np.float64)
        known = mean > 0
        columns[f"amount_over_mean_{window}"] = np.where(known, amount / np.where(known, mean, 1.0), 1.0)
    return type(inputs)({name: values.astype(np.float32) for name, values in columns.items()})
