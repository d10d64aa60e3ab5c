"""The specs of a test: those of card_fraud and its source, changed, or its own."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from testing.quick_yaml import read_yaml, yaml_of
from training.contract.model_spec import MODELS_DIR
from training.contract.source_spec import SOURCES_DIR
from training.contract.spec_file import FEATURE_STORE

SOURCE, MODEL = "card_payments", "card_fraud"
Raw = dict[str, Any]


def raw_specs(sources_dir: Path = SOURCES_DIR) -> tuple[Raw, Raw]:
    """The fields of the model spec and of the source spec in `sources_dir`."""
    model: Raw = read_yaml((MODELS_DIR / f"{MODEL}.yaml").read_text())
    source: Raw = read_yaml((sources_dir / f"{SOURCE}.yaml").read_text())
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
    for files in dict.fromkeys((SOURCES_DIR, sources_dir)):
        shutil.copytree(files, folder / "repo", dirs_exist_ok=True)
    return _write(folder, [model], source)


def own_spec_files(folder: Path, models: Sequence[Raw], source: Raw) -> dict[str, Path]:
    """As `spec_files`, with a source of the test's own and models of it."""
    found = _write(folder, models, source)
    shutil.copy(SOURCES_DIR / FEATURE_STORE, found["feature_repo"])
    return found


def _write(folder: Path, models: Sequence[Raw], source: Raw) -> dict[str, Path]:
    found = {"models_dir": folder / "models", "feature_repo": folder / "repo"}
    for name, specs in (("models_dir", models), ("feature_repo", [source])):
        found[name].mkdir(parents=True, exist_ok=True)
        for fields in specs:
            (found[name] / f"{fields['name']}.yaml").write_text(yaml_of(fields))
    return found
