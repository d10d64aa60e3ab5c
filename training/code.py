"""Digests of the code that trains a model."""

import hashlib
from collections.abc import Iterable

from training.adapters.features import definitions_digest
from training.contract.model_spec import ModelSpec
from training.domain.identity import code_id, digest
from training.estimators import base
from training.settings import ROOT, StateSettings

PACKAGE = ROOT / "training"
#: The files and folders of the package that decide what a fit gives.
FITTING = (
    "estimators",
    "domain/tasks",
    "domain/task_kind.py",
    "domain/encoding.py",
    "domain/folds.py",
    "adapters/parameter_search.py",
    "tuning.py",
)


def fitting_digest(names: Iterable[str]) -> str:
    """SHA-256 of the source that decides what a fit gives: FITTING, and the packages of those estimators in `names`
    that come from elsewhere.
    """
    places = [PACKAGE / each for each in FITTING]
    files = {
        path.relative_to(PACKAGE).as_posix(): path
        for place in places
        for path in ([place] if place.is_file() else place.rglob("*.py"))
    }
    for name in names:
        files |= base.outside_sources(name)
    return digest({name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}, 64)


def training_code(settings: StateSettings, spec: ModelSpec) -> str:
    """Changes when the same data could train another model: with the estimators, the features or the spec's training.

    It does not change with the commit, nor with parts of the spec that have nothing to do with training.
    """
    definitions = definitions_digest(settings.feature_repo, spec.source)
    return code_id(spec, fitting_digest(spec.training.estimators), definitions)
