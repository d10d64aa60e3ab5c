"""A registered version is made again from its recipe, in processes of their own, and compared."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable

from testing.serving_stack import changed
from tests.steps.monitored_model import MODEL, SOURCE, MonitoredModel, copied
from training.adapters.ledger import Ledger
from training.adapters.registry import ModelVersion, Registry, Runs
from training.contract.errors import DataContractError, InputError
from training.contract.messages import ReproduceInputs, TrainInputs, TrainResult
from training.contract.recipe import RECIPE_FILE, RECIPE_FOLDER, Recipe
from training.settings import Settings
from training.steps import reproduce


def reproductions(settings: Settings) -> list[dict[str, Any]]:
    return [entry.body for entry in Ledger(settings.ledger).entries(MODEL, reproduce.REPRODUCTION)]


def version_with(settings: Settings, champion: ModelVersion, folder: Path, **changes: Any) -> ModelVersion:
    """A version of the champion's artifact whose recipe has these `changes`; without any, it has no recipe."""
    registry = Registry(settings.tracking_uri)
    runs = Runs(settings.tracking_uri, MODEL, str(folder / "artifacts"))
    begun = runs.begin("copy", f"copy-{'-'.join(changes)}", {})
    served = folder / "served"
    runs.fetch(champion.run_id, champion.digest, served, 100)
    runs.log_files(begun.run_id, served, "served")
    if changes:
        kept = folder / RECIPE_FILE
        assert registry.download_file(champion.run_id, f"{RECIPE_FOLDER}/{RECIPE_FILE}", kept)
        recipe = Recipe.model_validate_json(kept.read_bytes()).model_copy(update=changes)
        kept.write_text(recipe.model_dump_json())
        (folder / "recipe").mkdir()
        shutil.move(kept, folder / "recipe")
        runs.log_files(begun.run_id, folder / "recipe", RECIPE_FOLDER)
    return registry.register(MODEL, begun.run_id, champion.digest, {})


@pytest.fixture
def place(world: MonitoredModel, tmp_path: Path) -> Settings:
    return copied(world, tmp_path)


def recipe_of(version: ModelVersion, settings: Settings, folder: Path) -> Recipe:
    kept = folder / "kept.json"
    Registry(settings.tracking_uri).download_file(version.run_id, f"{RECIPE_FOLDER}/{RECIPE_FILE}", kept)
    return Recipe.model_validate_json(kept.read_bytes())


@pytest.mark.ci
def test_the_champion_is_made_again_though_its_dataset_is_gone_and_the_spec_has_changed(
    world: MonitoredModel, place: Settings, tmp_path: Path
) -> None:
    """Neither the work folder nor the spec of today decides: the recipe does."""
    models = tmp_path / "models"
    shutil.copytree(place.models_dir, models)
    text = (models / f"{MODEL}.yaml").read_text()
    assert "holdout_days: 7" in text
    (models / f"{MODEL}.yaml").write_text(text.replace("holdout_days: 7", "holdout_days: 5"))
    settings = changed(place, models_dir=models, work_uri=str(tmp_path / "work"))

    result = reproduce.run(ReproduceInputs(model=MODEL), settings)

    assert (result.outcome, result.version, result.differences) == ("same", world.champion.version, [])
    assert result.now == result.before
    assert result.now is not None
    assert result.now.digest == world.champion.digest
    assert "average_precision" in result.now.metrics
    assert reproductions(settings)[-1]["outcome"] == "same"
    assert not list(Path(settings.scratch).glob("*/datasets/*"))


@pytest.mark.long
def test_a_searched_calibrated_network_is_made_again_where_other_steps_use_another_number_of_threads(
    world: MonitoredModel, place: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last bits of a fit of torch depend on the number of threads: the recipe names it."""
    models = tmp_path / "models"
    shutil.copytree(place.models_dir, models)
    spec = yaml.safe_load((models / f"{MODEL}.yaml").read_text())
    space = {"mlp": {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}}}
    # The window has 14 days, and labels are 7 days late.
    spec["training"] |= {
        "calibration": "isotonic",
        "search": {"trials": 2, "folds": 1, "fold_days": 2, "spaces": space},
    }
    (models / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
    settings = changed(place, models_dir=models)
    quick = {"hidden": [16], "max_epochs": 2}
    # A step takes datasets of its own work folder only.
    data = str(settings.home / Path(world.dataset.uri).relative_to(world.settings.home))
    fit = TrainInputs(model=MODEL, estimator="mlp", dataset_uri=data, seed=3, parameters=quick)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    trained = TrainResult.model_validate(reproduce._run("train", fit.model_dump(mode="json"), tmp_path, settings, {}))
    version = Registry(settings.tracking_uri).register(MODEL, trained.run_id, trained.digest, {})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    result = reproduce.run(ReproduceInputs(model=MODEL, version=version.version), settings)

    assert (result.outcome, result.differences, result.tolerance) == ("same", [], 0.0)
    assert result.now == result.before
    recipe = recipe_of(version, settings, tmp_path)
    assert recipe.threads["OMP_NUM_THREADS"] == "2"
    assert recipe.fit["parameters"]["learning_rate"] != 1e-3


@pytest.mark.long
def test_other_parameters_give_another_model_and_the_causes_are_named(
    world: MonitoredModel, place: Settings, tmp_path: Path
) -> None:
    recipe = recipe_of(world.champion, place, tmp_path)
    parameters = {**recipe.fit["parameters"], "C": 0.001}
    libraries = {**recipe.libraries, "scikit-learn": "0.1"}
    version = version_with(
        place,
        world.champion,
        tmp_path,
        fit={**recipe.fit, "parameters": parameters},
        libraries=libraries,
        git_sha="abc",
    )
    with pytest.raises(DataContractError) as raised:
        reproduce.run(ReproduceInputs(model=MODEL, version=version.version), place)

    assert "SHA-256 of model.onnx" in raised.value.message
    assert "roc_auc on the holdout was" in raised.value.message
    assert "The library scikit-learn was 0.1 and is" in raised.value.hint
    assert "check out commit abc" in raised.value.hint
    found = reproductions(place)[-1]
    assert (found["outcome"], found["version"]) == ("different", version.version)
    assert found["before"]["dataset_id"] == found["now"]["dataset_id"]


def test_rows_that_were_vacuumed_are_named(place: Settings) -> None:
    """The lake has another version of the events by now, and Delta's vacuum has deleted the files of the old one."""
    table = DeltaTable(f"{place.lake}/{SOURCE}/events")
    table.delete("amount > 50")
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)

    with pytest.raises(DataContractError, match="not reproduced") as raised:
        reproduce.run(ReproduceInputs(model=MODEL), place)

    assert "events" in raised.value.message
    assert reproductions(place)[-1]["outcome"] == "impossible"


def test_a_version_from_before_recipes_says_so(world: MonitoredModel, place: Settings, tmp_path: Path) -> None:
    version = version_with(place, world.champion, tmp_path)
    with pytest.raises(InputError, match=f"version {version.version} has no recipe"):
        reproduce.run(ReproduceInputs(model=MODEL, version=version.version), place)


def test_without_a_champion_a_version_must_be_named(tmp_path: Path, mlflow_database: Path) -> None:
    shutil.copy(mlflow_database, tmp_path)
    settings = Settings(home=tmp_path / "home", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(InputError, match="has no champion"):
        reproduce.run(ReproduceInputs(model=MODEL), settings)
