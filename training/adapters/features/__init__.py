"""Features through Feast: the point-in-time join for training, the online store for serving."""

from training.adapters.features.definitions import definitions_digest
from training.adapters.features.features import Features
from training.adapters.features.online import Found, OnlineFeatures, Plan

__all__ = ["Features", "Found", "OnlineFeatures", "Plan", "definitions_digest"]
