"""Removing a source or a model: what goes, what stays, and that it can be killed and called again."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.feature_repo.payments_and_features import MODEL, SOURCE, compute, payments, put
from tests.onboarding.conftest import in_folder
from training import storage
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, PREVIOUS, Registry
from training.contract.errors import ConfigError, InputError
from training.contract.messages import MaterializeInputs
from training.contract.model_spec import MODELS_DIR, model_names
from training.contract.source_spec import load_source_spec, source_names
from training.contract.traffic import MODE, Desired
from training.onboarding.__main__ import main
from training.onboarding.removal import REMOVAL, Removal, model_removal, source_removal
from training.settings import Settings, variable
from training.steps import materialize


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> tuple[Settings, Path]:
    """The source card_payments with its two models, of which card_fraud has versions, aliases and predictions. And a
    copy of all its files."""
    folder = tmp_path_factory.mktemp("stack")
    shutil.copy(mlflow_database, folder / "mlflow.db")
    here = in_folder(folder)
    for name in (MODEL, "flight_delay"):
        shutil.copy(MODELS_DIR / f"{name}.yaml", here.models_dir)
    other = (MODELS_DIR / f"{MODEL}.yaml").read_text().replace(f"name: {MODEL}", "name: other")
    (here.models_dir / "other.yaml").write_text(other)
    put(here, *payments(12))
    materialize.run(MaterializeInputs(source=SOURCE, table_versions=compute(here, 0, 13)), here)
    _register(here)
    (Path(here.lake) / SOURCE / "predictions" / MODEL).mkdir(parents=True)
    for part in (f"{MODEL}/datasets/abc", f"{MODEL}/snapshots", f"{MODEL}/verdicts", f"{SOURCE}/data_docs/x"):
        (Path(here.work) / part).mkdir(parents=True)
        (Path(here.work) / part / "file").write_text("x")
    for file in (f"events/models/{MODEL}/x.json", f"overviews/{MODEL}.json", "overviews/other.json"):
        storage.write(storage.join(here.work, "_life", file), b"{}")
    (Path(here.serving) / "models" / MODEL / "1").mkdir(parents=True)
    kept = tmp_path_factory.mktemp("kept") / "stack"
    shutil.copytree(folder, kept)
    return here, kept


@pytest.fixture
def stack(made: tuple[Settings, Path], tmp_path: Path) -> Settings:
    """What was made: in its place again, for the registry of features names where it lies. MLflow's database, which
    stays open, is a copy of its own.
    """
    settings, kept = made
    shutil.rmtree(settings.home.parent)
    shutil.copytree(kept, settings.home.parent)
    shutil.copy(kept / "mlflow.db", tmp_path)
    return settings.model_copy(update={"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"})


def _register(settings: Settings) -> None:
    """Two versions of card_fraud without files, a canary between them, and one version of another model."""
    from mlflow import MlflowClient

    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    for model, versions in ((MODEL, 2), ("other", 1)):
        client.create_registered_model(model)
        for _ in range(versions):
            client.create_model_version(model, f"{settings.home}/nowhere")
        Registry(settings.tracking_uri).set_alias(model, CHAMPION, versions)
    Registry(settings.tracking_uri).set_alias(MODEL, PREVIOUS, 1)
    Registry(settings.tracking_uri).set_traffic(MODEL, Desired(mode="canary", weight=10.0, stage="s"))


def apply(removal: Removal) -> None:
    for change in removal.changes:
        change.do()


def published(settings: Settings) -> dict[str, set[str]]:
    """The names in Feast's published registry, by kind."""
    from training.adapters.features.store import published_store

    store = published_store(settings)
    views = {each.name for each in (*store.list_feature_views(), *store.list_on_demand_feature_views())}
    return {
        "views": views,
        "services": {each.name for each in store.list_feature_services()},
        "entities": {each.name for each in store.list_entities()},
    }


def online_rows(settings: Settings) -> int:
    with sqlite3.connect(settings.online) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables)


def test_a_model_goes_and_its_evidence_stays(stack: Settings) -> None:
    assert MODEL in published(stack)["services"]
    removal = model_removal(MODEL, stack)
    apply(removal)
    registry = Registry(stack.tracking_uri)
    state = registry.state(MODEL)
    assert (dict(state.aliases), MODE in state.tags) == ({}, False)
    assert [each.version for each in registry.versions(MODEL)] == [1, 2]
    assert model_names(stack.models_dir) == ["flight_delay", "other"]
    assert MODEL not in published(stack)["services"]
    assert [path.name for path in (Path(stack.work) / MODEL).iterdir()] == ["verdicts"]
    assert any("reports" in each and "verdicts" in each for each in removal.stays)
    # A later model of this name does not begin with an old champion on the pages.
    life = Path(stack.work) / "_life"
    assert not (life / "events" / "models" / MODEL).exists()
    assert [path.name for path in (life / "overviews").iterdir()] == ["other.json"]
    assert not (Path(stack.serving) / "models" / MODEL).exists()
    assert (Path(stack.lake) / SOURCE / "predictions" / MODEL).exists()
    assert any(f"predictions/{MODEL}" in each for each in removal.stays)
    # What was removed can be read: in the ledger, and as a file.
    [entry] = Ledger(stack.ledger).entries(MODEL, REMOVAL)
    assert entry.body["aliases"] == {CHAMPION: 2, PREVIOUS: 1}
    assert (stack.scratch / "removed" / f"{MODEL}.yaml").read_text() == entry.body["spec"]


def test_other_models_of_the_source_lose_nothing(stack: Settings) -> None:
    before, rows = published(stack), online_rows(stack)
    apply(model_removal(MODEL, stack))
    after = published(stack)
    assert after["views"] == before["views"]
    assert after["services"] == before["services"] - {MODEL}
    assert online_rows(stack) == rows > 0
    assert dict(Registry(stack.tracking_uri).state("other").aliases) == {CHAMPION: 1}
    assert Lake(stack.lake, SOURCE, "other").version("events") is not None


@pytest.mark.ci
def test_a_removal_that_was_killed_anywhere_is_continued(stack: Settings) -> None:
    # After each change the process is killed, and the next one looks anew.
    for _ in model_removal(MODEL, stack).changes:
        model_removal(MODEL, stack).changes[0].do()
    with pytest.raises(InputError, match="There is no model"):
        model_removal(MODEL, stack)
    assert Registry(stack.tracking_uri).by_alias(MODEL, CHAMPION) is None


@pytest.mark.ci
def test_the_removal_of_a_source_that_was_killed_before_its_end_is_continued(stack: Settings) -> None:
    for model in (MODEL, "other"):
        apply(model_removal(model, stack))
    *most, last = source_removal(SOURCE, stack).changes
    assert f"{SOURCE}.yaml" in last.what
    for change in most:
        change.do()
    apply(source_removal(SOURCE, stack))
    assert source_names(stack.feature_repo) == ["flights"]
    assert online_rows(stack) == 0


def test_what_was_removed_before_is_not_overwritten(stack: Settings) -> None:
    spec, kept = stack.models_dir / "other.yaml", stack.scratch / "removed"
    text = spec.read_text()
    for title in ("First", "Second", "Second", "Third"):
        spec.write_text(text.replace("title: ", f"title: {title} "))
        apply(model_removal("other", stack))
    assert sorted(path.name for path in kept.iterdir()) == ["other-2.yaml", "other-3.yaml", "other.yaml"]
    assert "title: First" in (kept / "other.yaml").read_text()
    assert "title: Third" in (kept / "other-3.yaml").read_text()


def test_a_source_with_models_is_refused_and_the_models_are_named(stack: Settings) -> None:
    with pytest.raises(InputError, match=f"Models learn from {SOURCE}: {MODEL}, other") as error:
        source_removal(SOURCE, stack)
    assert f"make remove-model NAME={MODEL}" in error.value.hint
    assert SOURCE in source_names(stack.feature_repo)


def test_a_source_goes_and_its_tables_stay(stack: Settings) -> None:
    for model in (MODEL, "other"):
        apply(model_removal(model, stack))
    events = Lake(stack.lake, SOURCE).version("events")
    removal = source_removal(SOURCE, stack)
    apply(removal)
    assert source_names(stack.feature_repo) == ["flights"]
    assert online_rows(stack) == 0
    left = published(stack)
    assert (left["views"], left["services"]) == (set(), set())
    assert not {"customer_id", "terminal_id"} & left["entities"]
    assert list(Path(stack.feature_registry).parent.glob(f"{SOURCE}.*")) == []
    assert Lake(stack.lake, SOURCE).version("events") == events is not None
    assert not (Path(stack.work) / SOURCE / "data_docs").exists()
    assert any("cannot be made again" in each for each in removal.stays)
    assert sorted(path.name for path in (stack.scratch / "removed").glob(f"{SOURCE}.*")) == [
        f"{SOURCE}.py",
        f"{SOURCE}.yaml",
    ]


def test_a_source_that_comes_back_is_published_again(stack: Settings) -> None:
    for model in (MODEL, "other"):
        apply(model_removal(model, stack))
    files = {path.name: path.read_bytes() for path in stack.feature_repo.glob(f"{SOURCE}.*")}
    apply(source_removal(SOURCE, stack))
    for name, content in files.items():
        (stack.feature_repo / name).write_bytes(content)
    spec = load_source_spec(SOURCE, stack.feature_repo)
    versions = Lake(stack.lake, SOURCE).versions(*spec.entities)
    result = materialize.run(MaterializeInputs(source=SOURCE, table_versions=versions), stack)
    assert sum(result.rows.values()) > 0
    assert online_rows(stack) > 0


def test_the_command_shows_first_and_removes_with_apply(
    stack: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for field in ("home", "models_dir", "feature_repo", "tracking_uri"):
        monkeypatch.setenv(variable(field), str(getattr(stack, field)))
    assert main(["remove-model", "--name", "other"]) == 0
    said = capsys.readouterr().out
    assert "Nothing was changed" in said
    assert "This stays" in said
    assert "other" in model_names(stack.models_dir)
    assert main(["remove-model", "--name", "other", "--apply"]) == 0
    assert "other" not in model_names(stack.models_dir)
    assert main(["remove-source", "--name", SOURCE, "--apply"]) != 0
    assert MODEL in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nothing", "../lake", "", "A b"])
def test_a_name_of_nothing_has_a_clear_error(stack: Settings, name: str) -> None:
    for removal in (model_removal, source_removal):
        with pytest.raises(InputError) as error:
            removal(name, stack)
        assert error.value.hint


def test_a_source_with_mistakes_is_not_half_removed(stack: Settings) -> None:
    for model in (MODEL, "other"):
        apply(model_removal(model, stack))
    (stack.feature_repo / f"{SOURCE}.yaml").write_text("name: [")
    with pytest.raises(ConfigError):
        source_removal(SOURCE, stack)
    assert online_rows(stack) > 0
