"""A digest of the training code. It changes when the same data could give a different model."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from training.adapters.features import definitions_digest
from training.contract.model_spec import ModelSpec
from training.estimators import base
from training.settings import StateSettings

ESTIMATORS = Path(base.__file__).parents[1]


def estimators_digest(names: Iterable[str]) -> str:
    """SHA-256 of the source of all modules in training/estimators, which share code, and of estimators in `names` that
    come from another package.
    """
    files = {path.relative_to(ESTIMATORS).as_posix(): path for path in ESTIMATORS.rglob("*.py")}
    files |= {name: path for name in names if (path := base.outside_source(name))}
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def training_code(settings: StateSettings, spec: ModelSpec) -> str:
    """SHA-256 of the estimators, the feature definitions and the spec's sections on training; first 16 hex digits.

    It does not depend on the commit, because a change of the documentation must not start a training.
    """
    parts = [estimators_digest(spec.training.estimators), definitions_digest(settings.feature_repo, spec)]
    parts += [part.model_dump_json() for part in (spec.training, spec.label, spec.features)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
