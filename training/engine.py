"""The feature engine that the settings choose."""

from training.contract.registries import FEATURE_ENGINES
from training.domain.feature_engine import FeatureEngine
from training.settings import StateSettings


def engine_of(settings: StateSettings) -> FeatureEngine:
    """The engine that CT_ENGINE names. Raises ConfigError when there is none of this name."""
    found: FeatureEngine = FEATURE_ENGINES.find(settings.engine)(settings.engine_url)
    return found
