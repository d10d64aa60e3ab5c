"""Features through Feast: the point-in-time join for training, the online store for serving."""

from training.adapters.features.definitions import RequestCode, definitions_digest, request_code
from training.adapters.features.features import Features
from training.adapters.features.golden import check_golden_features, golden_events
from training.adapters.features.online import Found, OnlineFeatures, Plan, Reads, View, request_column
from training.adapters.features.reader import OnlineReader

__all__ = [
    "Features",
    "Found",
    "OnlineFeatures",
    "OnlineReader",
    "Plan",
    "Reads",
    "RequestCode",
    "View",
    "check_golden_features",
    "definitions_digest",
    "golden_events",
    "request_code",
    "request_column",
]
