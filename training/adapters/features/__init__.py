"""Features through Feast: the point-in-time join for training, and the online store for serving."""

from training.adapters.features.batch_features import BatchFeatures
from training.adapters.features.definitions_file import RequestCode, definitions_digest, request_code
from training.adapters.features.feature_plan import FeaturePlan, OnlineFeatures, event_texts, request_column
from training.adapters.features.features import Features
from training.adapters.features.golden import check_golden_features, golden_events
from training.adapters.features.joined_features import JoinedFeatures
from training.adapters.features.merged_views import MergedViews
from training.adapters.features.online_rows import OnlineRows
from training.adapters.features.online_stores._feast_reader import OnlineReader
from training.adapters.features.views import View, ViewRows

__all__ = [
    "BatchFeatures",
    "FeaturePlan",
    "Features",
    "JoinedFeatures",
    "MergedViews",
    "OnlineFeatures",
    "OnlineReader",
    "OnlineRows",
    "RequestCode",
    "View",
    "ViewRows",
    "check_golden_features",
    "definitions_digest",
    "event_texts",
    "golden_events",
    "request_code",
    "request_column",
]
