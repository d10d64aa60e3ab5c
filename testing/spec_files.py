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


def raw_specs(sources_dir: Path = SOURCES_DIR) -> tuple[Raw, Raw]:
    """The fields of the model spec and of the source spec in `sources_dir`."""
    model: Raw = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    source: Raw = yaml.safe_load((sources_dir / f"{SOURCE}.yaml").read_text())
    return model, source


def spec_files(
    folder: Path,
    change: Callable[[Raw, Raw], Any] = lambda model, source: None,
    sources_dir: Path = SOURCES_DIR,
) -> dict[str, Path]:
    """Write `folder`/models and `folder`/repo: the fields of Settings that name them.

    `change` edits the fields of the model spec and of the source spec. `sources_dir`: files of the source that take the
    place of those in the repository.
    """
    model, source = raw_specs(sources_dir)
    change(model, source)
    found = {"models_dir": folder / "models", "feature_repo": folder / "repo"}
    found["models_dir"].mkdir(parents=True, exist_ok=True)
    (found["models_dir"] / f"{model['name']}.yaml").write_text(yaml.safe_dump(model, sort_keys=False))
    for files in dict.fromkeys((SOURCES_DIR, sources_dir)):
        shutil.copytree(files, found["feature_repo"], dirs_exist_ok=True)
    (found["feature_repo"] / f"{source['name']}.yaml").write_text(yaml.safe_dump(source, sort_keys=False))
    return found
