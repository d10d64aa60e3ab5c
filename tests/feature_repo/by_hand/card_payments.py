"""The features of card_payments as Feast objects: names, tables, and the function for the features of a request.

card_payments.sql computes the batch features. A batch feature of an unknown entity is 0, as in the SQL.
"""

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.data_format import DeltaFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, UnixTimestamp

#: How long a feature row is used when there is no newer one. Data may be a week late.
TTL = timedelta(days=7)
#: Only for the `feast` command, which cannot import our settings. The steps use the lake of their settings instead.
HOME = os.environ.get("CT_HOME") or Path(__file__).parent.parent / ".perennial"
LAKE = os.environ.get("CT_LAKE_URI") or f"{HOME}/lake"

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64, description="The card holder")
terminal = Entity(
    name="terminal", join_keys=["terminal_id"], value_type=ValueType.INT64, description="Where the payment is made"
)


def _source(table: str) -> FileSource:
    return FileSource(
        name=table,
        path=f"{LAKE}/card_payments/{table}",
        timestamp_field="feature_timestamp",
        file_format=DeltaFormat(),
    )


customer_features = FeatureView(
    name="customer_features",
    entities=[customer],
    ttl=TTL,
    schema=[
        Field(name="customer_count_1d", dtype=Float32, description="Payments in the day before midnight"),
        Field(name="customer_count_7d", dtype=Float32, description="… in the 7 days"),
        Field(name="customer_count_30d", dtype=Float32, description="… in the 30 days"),
        Field(name="customer_mean_1d", dtype=Float32, description="Mean amount in the day before midnight"),
        Field(name="customer_mean_7d", dtype=Float32, description="… in the 7 days"),
        Field(name="customer_mean_30d", dtype=Float32, description="… in the 30 days"),
    ],
    source=_source("customer_features"),
)

terminal_features = FeatureView(
    name="terminal_features",
    entities=[terminal],
    ttl=TTL,
    schema=[
        Field(
            name="terminal_count_1d", dtype=Float32, description="Labelled payments in the day that ended 7 days ago"
        ),
        Field(name="terminal_count_7d", dtype=Float32, description="… in the 7 days"),
        Field(name="terminal_count_30d", dtype=Float32, description="… in the 30 days"),
        Field(name="terminal_fraud_share_1d", dtype=Float32, description="Share of frauds among those of the day"),
        Field(name="terminal_fraud_share_7d", dtype=Float32, description="… of the 7 days"),
        Field(name="terminal_fraud_share_30d", dtype=Float32, description="… of the 30 days"),
    ],
    source=_source("terminal_features"),
)

payment = RequestSource(
    name="payment",
    schema=[Field(name="amount", dtype=Float64), Field(name="event_time", dtype=UnixTimestamp)],
)


@on_demand_feature_view(
    name="request_features",
    sources=[customer_features, payment],
    # Feast compares these fields and their descriptions with inferred fields, so the descriptions are comments.
    schema=[
        Field(name="payment_amount", dtype=Float32),  # In the currency of the account
        Field(name="weekend", dtype=Float32),  # 1 on Saturday and Sunday, UTC
        Field(name="night", dtype=Float32),  # 1 from 00:00 to 06:59, UTC
        Field(name="amount_over_mean_7d", dtype=Float32),  # Amount over the customer's mean of 7 days
        Field(name="amount_over_mean_30d", dtype=Float32),  # Amount over the customer's mean of 30 days
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
