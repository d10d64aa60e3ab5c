"""Versions are signed when they are registered, and verified wherever they are loaded."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prometheus_client import CollectorRegistry

from serving.load_guard import LoadGuard
from serving.loader import Loader, NotLoaded
from serving.metrics import Metrics
from testing.serving_artifacts import artifact
from testing.serving_stack import changed, fill_online_store
from testing.signing_keys import key_pair
from testing.waiting import eventually
from tests.cases import others_in_ci
from training import sign
from training.adapters.features import Features
from training.adapters.ledger import Ledger
from training.adapters.registry import ModelVersion, Registry
from training.adapters.registry.versions import METADATA_DIGEST
from training.contract.artifact import METADATA_FILE, ONNX_FILE, ArtifactMetadata
from training.contract.errors import ConfigError, DataContractError, InputError, StepError
from training.contract.messages import Candidate, RegisterInputs, RollbackInputs, Verdict
from training.contract.model_spec import load_model_spec
from training.domain.forgetting import Entity
from training.evidence_page.__main__ import where
from training.forgotten_artifacts import clean_versions
from training.settings import Settings
from training.signing import fetch_signed
from training.steps import register, rollback
from training.verified import version_faults
from training.workspace import served_artifact

MODEL = "card_fraud"
#: What a run has besides the served artifact.
KEPT = "reference/holdout.parquet"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an online store."""
    settings = Settings(home=tmp_path_factory.mktemp("filled"), tracking_uri="http://127.0.0.1:9")
    fill_online_store(settings, load_model_spec(MODEL))
    return settings.home


@pytest.fixture
def place(tmp_path: Path, mlflow_database: Path, filled: Path) -> Settings:
    """Keys to sign and to verify with, and an empty registry."""
    shutil.copy(mlflow_database, tmp_path)
    shutil.copytree(filled, tmp_path / "home")
    private, public = key_pair(tmp_path)
    keys = {"signing_key_file": private, "trusted_keys": public}
    return Settings(home=tmp_path / "home", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", **keys)


def unsigned(settings: Settings) -> Settings:
    """The settings from before there was a key."""
    return changed(settings, signing_key_file="", trusted_keys="")


def registered(settings: Settings, bias: float = 1.0) -> ModelVersion:
    """A version that the step `register` has registered, of a run with an artifact and rows of its holdout."""
    features = Features(settings, load_model_spec(MODEL))
    made = artifact(Path(settings.work) / MODEL / "artifacts" / f"{bias}", features.names(), bias, features=features)
    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    found = client.get_experiment_by_name(MODEL)
    experiment = found.experiment_id if found else client.create_experiment(MODEL, str(settings.home / "runs"))
    run = client.create_run(experiment).info.run_id
    client.log_artifacts(run, str(made), "served")
    client.log_text(run, "rows", KEPT)
    digest = ArtifactMetadata.model_validate_json((made / METADATA_FILE).read_text()).digest
    verdict = Verdict(
        promote=True, reasons=[], primary="roc_auc", challenger={}, champion=None, difference=None, confidence=0.9
    )
    challenger = Candidate(estimator="mlp", run_id=run, artifact_uri=str(made), digest=digest)
    inputs = RegisterInputs(model=MODEL, challenger=challenger, verdict=verdict, champion_version=None)
    return Registry(settings.tracking_uri).get(MODEL, register.run(inputs, settings).version)


def stored(settings: Settings, version: ModelVersion, path: str) -> Path:
    """A file of the version's run, where MLflow keeps it."""
    return settings.home / "runs" / version.run_id / "artifacts" / path


def flip(path: Path, at: int = 40) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def loader(settings: Settings) -> Loader:
    spec = load_model_spec(MODEL)
    metrics = Metrics(CollectorRegistry()).of(MODEL)
    return Loader(settings, spec, metrics, LoadGuard(settings), lambda: None)


def load(found: Loader, version: ModelVersion) -> str:
    """Empty when a replica loads the version; else why it refuses it."""

    def ended() -> str | None:
        try:
            found.take(version)
        except NotLoaded as error:
            refusal = found.refused.get(version.version)
            return refusal.reason if refusal else (None if "is being loaded" in str(error) else str(error))
        return "loaded"

    reason = eventually(ended)
    return "" if reason == "loaded" else str(reason)


def of_steps(settings: Settings, version: ModelVersion) -> str:
    """Why the steps refuse the version."""
    with pytest.raises(StepError) as error:
        served_artifact(settings, version)
    return str(error.value)


def test_a_registered_version_is_signed_and_loads(place: Settings) -> None:
    version = registered(place)
    client = MlflowClient(place.tracking_uri, place.tracking_uri)
    assert [each.path for each in client.list_artifacts(version.run_id, "signature")] == [
        "signature/reference.sig",
        "signature/served.sig",
    ]
    assert len(client.get_model_version(MODEL, "1").tags["signed_by"]) == 16
    served_artifact(place, version)
    assert load(loader(place), version) == ""


@pytest.mark.parametrize("file", others_in_ci([ONNX_FILE, METADATA_FILE]))
def test_a_changed_byte_is_refused_and_named(place: Settings, file: str) -> None:
    """Also when the registry's tag was changed along with model.onnx: whoever writes the one can write the other."""
    version = registered(place)
    path = stored(place, version, f"served/{file}")
    flip(path, -30 if file == ONNX_FILE else 40)
    if file == ONNX_FILE:
        version = _with_its_digest(place, version, path)
    for refused in (load(loader(place), version), of_steps(place, version)):
        assert f"Version 1 of {MODEL} is not as it was signed" in refused
        assert f"{file} was changed" in refused


def _with_its_digest(settings: Settings, version: ModelVersion, path: Path) -> ModelVersion:
    """What an attacker makes of the registry so that all digests fit."""
    from training.adapters.onnx_model import digest

    found = digest(path.read_bytes())
    metadata = path.with_name(METADATA_FILE)
    metadata.write_text(metadata.read_text().replace(version.digest, found))
    registry = Registry(settings.tracking_uri)
    registry.tag(MODEL, version.version, "digest", found)
    return registry.get(MODEL, version.version)


def test_added_and_removed_files_are_refused_and_named(place: Settings) -> None:
    version = registered(place)
    extra = stored(place, version, "served/golden.parquet")
    extra.write_bytes(b"more")
    assert "golden.parquet, which is not part of an artifact" in load(loader(place), version)
    extra.unlink()
    stored(place, version, f"served/{METADATA_FILE}").unlink()
    assert METADATA_FILE in load(loader(place), version)


def test_another_key_and_no_key(place: Settings, tmp_path: Path) -> None:
    old, version = place.trusted_keys, registered(place)
    private, public = key_pair(tmp_path, "other")
    other = changed(place, signing_key_file=private, trusted_keys=public)
    assert "which is not among CT_TRUSTED_KEYS" in load(loader(other), version)
    # While keys are changed, both are trusted; then the version is signed anew.
    both = changed(other, trusted_keys=f"{old},{public}")
    assert load(loader(both), version) == ""
    assert "Signed version 1 of card_fraud" in sign.sign_versions(MODEL, ("1",), both)[0]
    assert load(loader(other), version) == ""
    assert [entry.kind for entry in Ledger(place.ledger).entries(MODEL)] == ["signature"]


def test_an_unsigned_version_is_refused_until_it_is_signed(place: Settings) -> None:
    version = registered(unsigned(place))
    replica = loader(place)
    for refused in (load(replica, version), of_steps(place, version)):
        assert "is not signed, and CT_TRUSTED_KEYS requires it" in refused
        assert f"make sign MODEL={MODEL} VERSION=1" in refused
    sign.sign_versions(MODEL, (), place)
    replica.retry()
    eventually(lambda: load(replica, version) == "")
    served_artifact(place, version)


def test_a_copy_on_disk_is_verified_without_the_registry(place: Settings) -> None:
    version = registered(place)
    replica = loader(place)
    assert load(replica, version) == ""
    copy = replica.copy(1)
    away = changed(place, tracking_uri="http://127.0.0.1:9")
    assert loader(away).from_disk(1, version.digest).version == 1
    flip(copy / METADATA_FILE)
    with pytest.raises(DataContractError, match=r"metadata\.json was changed"):
        loader(away).from_disk(1, version.digest)
    # The registry has the right one.
    assert load(loader(place), version) == ""


def test_nothing_is_registered_that_could_not_serve(place: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no key to sign this version"):
        registered(changed(place, signing_key_file=""))
    _, public = key_pair(tmp_path, "other")
    with pytest.raises(ConfigError, match="which is not among CT_TRUSTED_KEYS"):
        registered(changed(place, trusted_keys=public))
    assert Registry(place.tracking_uri).versions(MODEL) == []


def test_a_run_whose_artifact_was_changed_before_it_is_signed_is_not_registered(
    place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is signed is what was judged; the run must have it."""
    log_artifacts = MlflowClient.log_artifacts

    def altered(self: MlflowClient, run: str, folder: str, path: str | None = None) -> None:
        log_artifacts(self, run, folder, path)
        if path == "served":
            flip(place.home / "runs" / run / "artifacts" / "served" / METADATA_FILE)

    monkeypatch.setattr(MlflowClient, "log_artifacts", altered)
    with pytest.raises(DataContractError, match=r"metadata\.json was changed"):
        registered(place)
    assert Registry(place.tracking_uri).versions(MODEL) == []


def test_a_rollback_to_an_unsigned_version_changes_nothing(place: Settings) -> None:
    registry = Registry(place.tracking_uri)
    first, second = registered(unsigned(place)), registered(place, 2.0)
    registry.set_alias(MODEL, "previous", first.version)
    registry.set_alias(MODEL, "champion", second.version)
    with pytest.raises(DataContractError, match="Version 1 of card_fraud is not signed") as error:
        rollback.run(RollbackInputs(model=MODEL), place)
    assert "make sign MODEL=card_fraud VERSION=1" in error.value.hint
    assert registry.state(MODEL).aliases["champion"] == second.version
    assert Ledger(place.ledger).entries(MODEL) == []


def test_what_else_a_run_has_is_verified(place: Settings, tmp_path: Path) -> None:
    version = registered(place)
    wanted: dict[str, Any] = {"to": tmp_path / "rows", "named": "version 1", "settings": place}
    assert fetch_signed(version.run_id, KEPT, **wanted)
    assert not fetch_signed(version.run_id, "reference/missing.parquet", **wanted)
    flip(stored(place, version, KEPT), 3)
    with pytest.raises(DataContractError, match=f"{KEPT} of version 1 is not as it was signed: holdout.parquet was"):
        fetch_signed(version.run_id, KEPT, **wanted)
    stored(place, version, "signature/reference.sig").unlink()
    with pytest.raises(DataContractError, match=f"{KEPT} of version 1 is not signed"):
        fetch_signed(version.run_id, KEPT, **wanted)


@pytest.mark.long
def test_signing_again_is_one_entry(place: Settings) -> None:
    registered(unsigned(place))
    for _ in range(2):
        sign.sign_versions(MODEL, ("1",), place)
    assert len(Ledger(place.ledger).entries(MODEL)) == 1
    with pytest.raises(ConfigError, match="no key to sign with"):
        sign.sign_versions(MODEL, ("1",), unsigned(place))
    with pytest.raises(StepError, match="no version 9"):
        sign.sign_versions(MODEL, ("9",), place)


def test_signing_vouches_for_metadata_that_were_changed(place: Settings) -> None:
    version = registered(unsigned(place))
    file = stored(place, version, f"served/{METADATA_FILE}")
    file.write_text(file.read_text() + " ")
    assert f"{METADATA_FILE} was changed" in version_faults(MODEL, unsigned(place))[0][0]
    lines = [sign.sign_versions(MODEL, ("1",), place) for _ in range(2)]
    now = Registry(place.tracking_uri).get(MODEL, 1).metadata_digest
    assert now == hashlib.sha256(file.read_bytes()).hexdigest() != version.metadata_digest
    assert f"{METADATA_FILE} was changed since it was registered: {now}" in lines[0][0]
    assert "was changed" not in lines[1][0]
    assert version_faults(MODEL, place) == ([], 1)


def test_a_misspelt_model_is_told_with_the_one_that_was_meant(place: Settings) -> None:
    registered(place)
    for ask in (lambda: sign.sign_versions("card_fruad", (), place), lambda: where("card_fruad", "3", place)):
        with pytest.raises(InputError, match="no registered model 'card_fruad'") as error:
            ask()
        assert "Did you mean 'card_fraud'?" in error.value.hint


@pytest.fixture
def without_somebody(place: Settings) -> tuple[ModelVersion, Entity]:
    """A signed version, and a person of whom it has one of its two golden rows."""
    version = registered(unsigned(place))
    metadata = metadata_of(place, version)
    first, second = metadata.golden.events
    events = [first, second | {"customer_id": first["customer_id"] + 1}]
    changed_metadata = metadata.model_copy(update={"golden": metadata.golden.model_copy(update={"events": events})})
    file = stored(place, version, f"served/{METADATA_FILE}")
    file.write_text(changed_metadata.model_dump_json())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    Registry(place.tracking_uri).tag(MODEL, version.version, METADATA_DIGEST, digest)
    sign.sign_versions(MODEL, ("1",), place)
    return version, Entity("customer_id", first["customer_id"])


def metadata_of(settings: Settings, version: ModelVersion) -> ArtifactMetadata:
    return ArtifactMetadata.model_validate_json(stored(settings, version, f"served/{METADATA_FILE}").read_bytes())


def test_a_version_is_signed_again_without_a_forgotten_person(
    place: Settings, without_somebody: tuple[ModelVersion, Entity]
) -> None:
    version, person = without_somebody
    _, left = clean_versions(MODEL, person, changed(place, signing_key_file=""), dry_run=False)
    assert "Run this again with CT_SIGNING_KEY_FILE" in left[0]
    assert len(metadata_of(place, version).golden.events) == 2

    removed, left = clean_versions(MODEL, person, place, dry_run=False)
    assert left == []
    assert removed == {f"golden and reference rows of version 1 of {MODEL}": 1}
    assert len(metadata_of(place, version).golden.events) == 1
    assert load(loader(place), version) == ""
    content = stored(place, version, f"served/{METADATA_FILE}").read_bytes()
    registered = Registry(place.tracking_uri).get(MODEL, version.version)
    assert registered.metadata_digest == hashlib.sha256(content).hexdigest()


@pytest.mark.ci
def test_forgetting_takes_no_changed_metadata_for_registered_ones(
    place: Settings, without_somebody: tuple[ModelVersion, Entity]
) -> None:
    version, person = without_somebody
    unsigned = changed(place, signing_key_file="", trusted_keys="")
    file = stored(place, version, f"served/{METADATA_FILE}")
    signature = stored(place, version, "signature/served.sig")
    for each in signature.parent.iterdir():
        each.unlink()
    as_registered = Registry(place.tracking_uri).get(MODEL, version.version).metadata_digest
    content = file.read_text()
    file.write_text(content + " ")
    removed, left = clean_versions(MODEL, person, unsigned, dry_run=False)
    assert removed == {}
    assert "metadata.json is not as it was registered" in left[0]
    assert Registry(place.tracking_uri).get(MODEL, version.version).metadata_digest == as_registered
    file.write_text(content)
    removed, left = clean_versions(MODEL, person, unsigned, dry_run=False)
    assert (len(removed), left) == (1, [])


def test_forgetting_signs_nothing_that_was_changed(
    place: Settings, without_somebody: tuple[ModelVersion, Entity]
) -> None:
    version, person = without_somebody
    file = stored(place, version, f"served/{METADATA_FILE}")
    file.write_text(file.read_text() + " ")
    removed, (left,) = clean_versions(MODEL, person, place, dry_run=False)
    assert removed == {}
    assert f"Version 1 of {MODEL} is not as it was signed: {METADATA_FILE} was changed" in left
    assert "is not as it was signed" in load(loader(place), version)
