"""Settings: the environment, validated; an unknown or bad one is named."""

import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from training.contract.errors import ConfigError
from training.settings import (
    ROLES,
    LauncherSettings,
    ServingSettings,
    Settings,
    StateSettings,
    load_settings,
    own_fields,
)


def test_everything_lies_under_home_unless_it_is_put_elsewhere(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    monkeypatch.setenv("CT_LAKE_URI", "s3://bucket/lake")
    settings = load_settings()
    assert settings.lake == "s3://bucket/lake"
    elsewhere = [settings.landing, settings.work, settings.ledger, settings.feature_registry, settings.online]
    assert all(uri.startswith(f"{tmp_path}/") for uri in elsewhere)


def test_an_unknown_setting_is_an_error_that_names_the_known(monkeypatch) -> None:
    monkeypatch.setenv("CT_LAKE_URL", "s3://bucket/lake")
    with pytest.raises(ConfigError, match="Unknown setting CT_LAKE_URL") as raised:
        load_settings()
    assert raised.value.hint.startswith("Did you mean 'CT_LAKE_URI'? Known: ")


def test_a_bad_value_names_its_variable(monkeypatch) -> None:
    monkeypatch.setenv("CT_SERVING_POLL_SECONDS", "often")
    with pytest.raises(ConfigError, match="CT_SERVING_POLL_SECONDS"):
        load_settings()


def test_the_commit_is_the_repositorys_unless_it_is_given(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CT_GIT_SHA", raising=False)
    place = tmp_path / "code"
    place.mkdir()
    monkeypatch.setattr("training.settings.ROOT", tmp_path / "no-repository")
    assert load_settings().git_sha is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(place), *arguments], check=True)
    (name,) = (place / ".git" / "refs" / "heads").iterdir()
    monkeypatch.setattr("training.settings.ROOT", place)
    assert load_settings().git_sha == name.read_text().strip()
    monkeypatch.setenv("CT_GIT_SHA", "abc")
    assert load_settings().git_sha == "abc"


def test_paths_are_absolute_and_settings_do_not_change() -> None:
    settings = Settings(home="somewhere")
    assert settings.home == Path.cwd() / "somewhere"
    with pytest.raises(ValidationError):
        settings.home = Path("/")


def test_a_copy_with_another_home_has_its_own_folders(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "a")
    before = (settings.lake, settings.ledger, settings.scratch)
    copy = settings.model_copy(update={"home": tmp_path / "b"})
    assert (copy.lake, copy.ledger) == (str(tmp_path / "b" / "lake"), str(tmp_path / "b" / "ledger"))
    assert (settings.lake, settings.ledger, settings.scratch) == before


def test_replicas_are_a_list_without_blanks_and_slashes() -> None:
    settings = Settings(serving_urls="http://a:3000/, http://b:3000 ,,")
    assert settings.replicas() == ["http://a:3000", "http://b:3000"]


def test_replicas_of_another_service_are_named() -> None:
    settings = Settings(serving_urls="http://a:3000, flights=http://b:3000/ ,flights=dns+http://c:3000,http://d/?x=1")
    assert settings.replicas() == ["http://a:3000", "http://d/?x=1"]
    assert settings.replicas("flights") == ["http://b:3000", "dns+http://c:3000"]
    with pytest.raises(ConfigError, match="no replica of the prediction service other") as raised:
        settings.replicas("other")
    assert "other=<url>" in raised.value.hint


def test_the_models_of_a_service_are_listed_or_all() -> None:
    assert Settings().listed_models is None
    assert Settings(serving_models="a, b,").listed_models == ["a", "b"]
    assert Settings(serving_models=" * ,").listed_models is None


@pytest.mark.parametrize("models", ["", " , ", "a,*", "../a", "A", "a b", "a.yaml"])
def test_a_list_of_models_that_makes_no_sense_is_refused(models: str) -> None:
    with pytest.raises(ValidationError, match="serving_models"):
        Settings(serving_models=models)


def test_entries_of_serving_urls_may_have_spaces_and_queries() -> None:
    settings = Settings(serving_urls=" http://a:1/?x=1 , flights = http://b:1/?y=2&z=3,")
    assert (settings.replicas(), settings.replicas("flights")) == (["http://a:1/?x=1"], ["http://b:1/?y=2&z=3"])
    for wrong in ("Flights=http://b:1", "my-flights=http://b:1", "=http://b:1"):
        with pytest.raises(ValidationError, match="not the name of a service"):
            Settings(serving_urls=wrong)


def test_a_setting_of_the_version_before_is_told_what_replaces_it(monkeypatch) -> None:
    monkeypatch.setenv("CT_SERVING_MODEL", "card_fraud")
    with pytest.raises(ConfigError, match="Unknown setting CT_SERVING_MODEL") as raised:
        load_settings()
    assert "CT_SERVING_MODEL is now CT_SERVING_MODELS" in raised.value.hint


@pytest.mark.parametrize("name", ["CT_FEAST_REGISTRY", "CT_SERVING_STATE", "CT_FORKSERVER_SOCKET"])
def test_what_has_to_be_on_a_disk_is_no_uri(name: str, monkeypatch) -> None:
    monkeypatch.setenv(name, "s3://bucket/there")
    with pytest.raises(ConfigError, match=f"{name}.*kept on a disk"):
        load_settings()


def test_every_setting_belongs_to_one_role() -> None:
    owned = [name for role in ROLES.values() for name in own_fields(role)]
    assert sorted(owned) == sorted(Settings.model_fields)


def test_a_role_has_its_own_settings_and_the_state_and_nothing_else() -> None:
    settings: StateSettings = Settings()
    assert isinstance(settings, ServingSettings)
    assert isinstance(settings, LauncherSettings)
    assert not any(name.startswith("pod_") for name in ServingSettings.model_fields)
    assert "serving_models" not in LauncherSettings.model_fields
    assert ServingSettings(home="/state").lake == LauncherSettings(home="/state").lake == "/state/lake"
