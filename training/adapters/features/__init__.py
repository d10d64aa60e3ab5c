"""Features through Feast: the point-in-time join for training, the online store for serving."""

from training.adapters.features.definitions import definitions_digest
from training.adapters.features.features import Features, OnlineFeatures

__all__ = ["Features", "OnlineFeatures", "definitions_digest"]
