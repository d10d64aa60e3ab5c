"""A process parses the file of a spec once, and again when it has changed."""

import os
from pathlib import Path

import pytest
import yaml

from testing.spec_files import spec_files
from training.contract.errors import ConfigError
from training.contract.model_spec import load_model_spec
from training.contract.source_spec import load_source_spec

MODEL, SOURCE = "card_fraud", "card_payments"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The files of the model spec and of the source spec, an hour old."""
    found = spec_files(tmp_path)
    both = found["models_dir"] / f"{MODEL}.yaml", found["feature_repo"] / f"{SOURCE}.yaml"
    for path in both:
        age(path)
    return both


def age(path: Path, seconds: int = 3600) -> None:
    now = path.stat().st_mtime_ns
    os.utime(path, ns=(now, now - seconds * 10**9))


def change(path: Path, **fields: object) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **fields}))


def test_a_file_that_has_not_changed_is_parsed_once(files: tuple[Path, Path]) -> None:
    model, source = files
    assert load_model_spec(MODEL, model.parent, source.parent) is load_model_spec(MODEL, model.parent, source.parent)
    found = load_source_spec(SOURCE, source.parent)
    assert found is load_source_spec(SOURCE, source.parent)
    assert load_model_spec(MODEL, model.parent, source.parent).source is found


def test_a_changed_file_is_parsed_again(files: tuple[Path, Path]) -> None:
    model, source = files
    before = load_model_spec(MODEL, model.parent, source.parent)
    change(model, title="Another")
    assert load_model_spec(MODEL, model.parent, source.parent).title == "Another"
    assert before.title == "Card fraud"


def test_a_model_is_read_again_when_its_source_has_changed(files: tuple[Path, Path]) -> None:
    model, source = files
    load_model_spec(MODEL, model.parent, source.parent)
    change(source, title="Other payments")
    assert load_model_spec(MODEL, model.parent, source.parent).source.title == "Other payments"


def test_a_model_is_read_again_for_sources_in_another_folder(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, source = files
    load_model_spec(MODEL, model.parent, source.parent)
    other = spec_files(tmp_path / "other", lambda _, fields: fields.update(title="Elsewhere"))["feature_repo"]
    assert load_model_spec(MODEL, model.parent, other).source.title == "Elsewhere"


def test_two_changes_within_the_resolution_of_a_file_system_are_both_seen(files: tuple[Path, Path]) -> None:
    model, source = files
    change(model, title="Another")
    now = model.stat()
    assert load_model_spec(MODEL, model.parent, source.parent).title == "Another"
    change(model, title="Changed")  # as long as the title before
    os.utime(model, ns=(now.st_atime_ns, now.st_mtime_ns))
    assert load_model_spec(MODEL, model.parent, source.parent).title == "Changed"


def test_a_spec_that_breaks_or_goes_is_not_found_among_those_that_were_read(files: tuple[Path, Path]) -> None:
    model, source = files
    load_model_spec(MODEL, model.parent, source.parent)
    change(model, typo=1)
    with pytest.raises(ConfigError, match="typo"):
        load_model_spec(MODEL, model.parent, source.parent)
    model.unlink()
    with pytest.raises(ConfigError, match="No spec for model"):
        load_model_spec(MODEL, model.parent, source.parent)
