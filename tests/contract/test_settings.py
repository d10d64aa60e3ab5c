"""Settings: the environment, validated; an unknown or bad one is named."""

import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from training.contract.errors import ConfigError
from training.settings import Settings, load_settings


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
    assert "CT_LAKE_URI" in raised.value.hint


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


def test_replicas_are_a_list_without_blanks_and_slashes() -> None:
    settings = Settings(serving_urls="http://a:3000/, http://b:3000 ,,")
    assert settings.replicas == ["http://a:3000", "http://b:3000"]


@pytest.mark.parametrize("name", ["CT_FEAST_REGISTRY", "CT_SERVING_STATE", "CT_FORKSERVER_SOCKET"])
def test_what_has_to_be_on_a_disk_is_no_uri(name: str, monkeypatch) -> None:
    monkeypatch.setenv(name, "s3://bucket/there")
    with pytest.raises(ConfigError, match=f"{name}.*kept on a disk"):
        load_settings()
