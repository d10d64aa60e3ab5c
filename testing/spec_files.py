"""Copies of the spec of card_fraud and of the files of its source, changed for a test."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from training.contract.model_spec import MODELS_DIR
from training.contract.source_spec import SOURCES_DIR

SOURCE, MODEL = "card_payments", "card_fraud"
Raw = dict[str, Any]


def raw_specs() -> tuple[Raw, Raw]:
    """The fields of the model spec and of the source spec."""
    model: Raw = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    source: Raw = yaml.safe_load((SOURCES_DIR / f"{SOURCE}.yaml").read_text())
    return model, source


def spec_files(folder: Path, change: Callable[[Raw, Raw], Any] = lambda model, source: None) -> dict[str, Path]:
    """Write `folder`/models and `folder`/repo: the fields of Settings that name them.

    `change` edits the fields of the model spec and of the source spec.
    """
    model, source = raw_specs()
    change(model, source)
    found = {"models_dir": folder / "models", "feature_repo": folder / "repo"}
    found["models_dir"].mkdir(parents=True, exist_ok=True)
    (found["models_dir"] / f"{model['name']}.yaml").write_text(yaml.safe_dump(model, sort_keys=False))
    shutil.copytree(SOURCES_DIR, found["feature_repo"], dirs_exist_ok=True)
    (found["feature_repo"] / f"{source['name']}.yaml").write_text(yaml.safe_dump(source, sort_keys=False))
    return found
