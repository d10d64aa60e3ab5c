"""Digests of the code that trains a model."""

import hashlib
from pathlib import Path

from training.adapters.features.definitions import definitions_digest
from training.contract.model_spec import ModelSpec
from training.domain.identity import code_id, digest
from training.estimators import base
from training.settings import Settings

ESTIMATORS = Path(base.__file__).parent


def estimators_digest() -> str:
    """SHA-256 of the estimators' modules: all of them, for they share some."""
    return digest({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in ESTIMATORS.glob("*.py")}, 64)


def training_code(settings: Settings, spec: ModelSpec) -> str:
    """Changes when the same data could train another model: with the estimators, the features or the spec's training.

    It does not change with the commit, nor with parts of the spec that have nothing to do with training.
    """
    return code_id(spec, estimators_digest(), definitions_digest(settings.feature_repo, spec))
