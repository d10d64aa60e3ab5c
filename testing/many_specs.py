"""A folder of many sources and models, all copies of card_payments and card_fraud under other names."""

from pathlib import Path

import yaml

from testing.spec_files import raw_specs
from training.contract.source_spec import FEATURE_STORE, SOURCES_DIR


def many_specs(folder: Path, sources: int, models: int) -> dict[str, Path]:
    """Write `folder`/models and `folder`/repo: the fields of Settings that name them.

    The models are spread evenly over the sources. Their names sort in the order of their numbers.
    """
    model, source = raw_specs()
    found = {"models_dir": folder / "models", "feature_repo": folder / "repo"}
    for path in found.values():
        path.mkdir(parents=True, exist_ok=True)
    (found["feature_repo"] / FEATURE_STORE).write_text((SOURCES_DIR / FEATURE_STORE).read_text())
    for number in range(sources):
        name = f"source_{number:03}"
        _write(found["feature_repo"], {**source, "name": name, "title": f"Source {number}"})
    for number in range(models):
        name = f"model_{number:04}"
        named = {"name": name, "title": f"Model {number}", "source": f"source_{number % sources:03}"}
        _write(found["models_dir"], {**model, **named})
    return found


def _write(folder: Path, fields: dict[str, object]) -> None:
    (folder / f"{fields['name']}.yaml").write_text(yaml.dump(fields, Dumper=yaml.CSafeDumper, sort_keys=False))
