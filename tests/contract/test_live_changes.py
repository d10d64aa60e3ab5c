"""Changes of a live model or source that are refused say so (docs/your-model.md, Changing a live model)."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.contract.errors import ConfigError
from training.contract.model_spec import load_model_spec
from training.settings import ROOT, Settings

PAGE = (ROOT / "docs" / "your-model.md").read_text()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "training" / "models", tmp_path / "models")
    shutil.copytree(ROOT / "feature_repo", tmp_path / "repo", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edited(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


def renamed_source(folder: Path) -> None:
    edited("repo/flights.yaml", "name: flights", "name: departures")(folder)
    (folder / "repo" / "flights.yaml").rename(folder / "repo" / "departures.yaml")


@pytest.mark.parametrize(
    ("row", "change", "said"),
    [
        (
            "| `labels` of the source: one removed |",
            edited("repo/flights.yaml", "  outcome: {feed: labels, delay_days: 2}\n", ""),
            "origin_outcomes.label names 'outcome', which is not one of the labels",
        ),
        (
            "| `task.kind`, where the label does not suit it |",
            edited("models/flight_outcome.yaml", "kind: multiclass", "kind: regression"),
            "label names 'outcome', whose type is string, but the label of a regression must be a number",
        ),
        ("| `name` of a source |", renamed_source, "source names 'flights', but there is no spec at"),
    ],
)
def test_a_change_that_cannot_be_is_refused(files: Path, row: str, change: Callable[[Path], None], said: str) -> None:
    assert row in PAGE
    load_model_spec("flight_outcome", files / "models", files / "repo")
    change(files)
    with pytest.raises(ConfigError, match=said):
        load_model_spec("flight_outcome", files / "models", files / "repo")


@pytest.mark.parametrize(
    ("row", "old", "new"),
    [
        ("| `title`, `description`, `owner` |", "owner: network-planning", "owner: others"),
        ("| `training.estimators` |", "    linear_regression: {}\n", ""),
        ("| `serving` |", "source: flights\n", "source: flights\nserving: planning\n"),
        ("| `task.interval`, `task.reference` |", "  interval: {coverage: 0.9}\n", ""),
    ],
)
def test_a_change_that_takes_effect_is_accepted(files: Path, row: str, old: str, new: str) -> None:
    assert row in PAGE
    before = load_model_spec("flight_delay", files / "models", files / "repo")
    edited("models/flight_delay.yaml", old, new)(files)
    after = load_model_spec("flight_delay", files / "models", files / "repo")
    assert after != before
    assert after.source == before.source


def test_a_folder_of_specs_that_is_away_removes_no_model(files: Path) -> None:
    from serving.served_specs import ServedSpecs

    settings = Settings(models_dir=files / "models", feature_repo=files / "repo", home=files / "home")
    specs = ServedSpecs(settings)
    assert specs.read()
    served = sorted(specs.good)
    (files / "models").rename(files / "away")
    with pytest.raises(ConfigError, match="no folder"):
        specs.read()
    assert sorted(specs.good) == served != []
    (files / "away").rename(files / "models")
    assert not specs.read()
    with pytest.raises(ConfigError, match="no folder"):
        ServedSpecs(settings.model_copy(update={"models_dir": files / "nowhere"})).read()


def test_a_model_moves_to_another_service_when_its_spec_names_it(files: Path) -> None:
    from serving.served_specs import ServedSpecs

    at: dict[str, Any] = {"models_dir": files / "models", "feature_repo": files / "repo", "home": files / "home"}
    default, planning = ServedSpecs(Settings(**at)), ServedSpecs(Settings(**at, serving_name="planning"))
    assert default.read()
    assert not planning.read()
    assert "flight_delay" in default.good
    edited("models/flight_delay.yaml", "source: flights\n", "source: flights\nserving: planning\n")(files)
    assert default.read()
    assert planning.read()
    assert sorted(default.good) == ["card_fraud", "flight_outcome"]
    assert sorted(planning.good) == ["flight_delay"]
