"""Digests of the code that trains a model."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from training.adapters.features import definitions_digest
from training.contract.model_spec import ModelSpec
from training.domain.identity import code_id, digest
from training.estimators import base
from training.settings import StateSettings

ESTIMATORS = Path(base.__file__).parents[1]


def estimators_digest(names: Iterable[str]) -> str:
    """SHA-256 of the source of all modules in training/estimators, which share code, and of estimators in `names` that
    come from another package.
    """
    files = {path.relative_to(ESTIMATORS).as_posix(): path for path in ESTIMATORS.rglob("*.py")}
    files |= {name: path for name in names if (path := base.outside_source(name))}
    return digest({name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}, 64)


def training_code(settings: StateSettings, spec: ModelSpec) -> str:
    """Changes when the same data could train another model: with the estimators, the features or the spec's training.

    It does not change with the commit, nor with parts of the spec that have nothing to do with training.
    """
    estimators = estimators_digest(spec.training.estimators)
    return code_id(spec, estimators, definitions_digest(settings.feature_repo, spec.source))
