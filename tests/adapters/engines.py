"""All feature engines, for tests that each of them must pass."""

import pytest

from training.contract.registries import FEATURE_ENGINES
from training.domain.feature_engine import FeatureEngine

#: Values of a parameter: the names of the engines.
ENGINES = [pytest.param(name, marks=[pytest.mark.spark] if name == "spark" else []) for name in FEATURE_ENGINES.names()]


def engine_settings(name: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """The fields of the settings for the engine, where it runs in these tests."""
    return {"engine": name, "engine_url": request.getfixturevalue("spark_url") if name == "spark" else ""}


def engine_of(name: str, request: pytest.FixtureRequest) -> FeatureEngine:
    """The engine, where it runs in these tests."""
    found: FeatureEngine = FEATURE_ENGINES.find(name)(engine_settings(name, request)["engine_url"])
    return found
