"""What decides what a model learns, apart from its data: a digest that changes when a training could differ."""

import hashlib
import json
from pathlib import Path

from training.adapters.features.definitions import definitions_digest
from training.contract.model_spec import ModelSpec
from training.estimators import base
from training.settings import StateSettings

ESTIMATORS = Path(base.__file__).parent


def estimators_digest() -> str:
    """SHA-256 of the estimators' modules: all of them, for they share some."""
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in ESTIMATORS.glob("*.py")}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def training_code(settings: StateSettings, spec: ModelSpec) -> str:
    """Of the estimators, the features' definitions and what the spec says of training; first 16 hex digits.

    Not the commit: one that changes a page of the documentation, or a threshold of drift, trains nothing anew.
    """
    parts = [estimators_digest(), definitions_digest(settings.feature_repo, spec)]
    parts += [part.model_dump_json() for part in (spec.training, spec.label, spec.features)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
