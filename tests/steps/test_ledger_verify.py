"""The ledger is compared with what registered versions say of it: a chain that was written anew is found."""

import json
import shutil
from pathlib import Path

import pytest

from tests.adapters.tiny_artifact import make_artifact
from training.adapters.ledger import Ledger
from training.adapters.registry import ModelVersion, Registry
from training.contract.errors import DataContractError
from training.contract.messages import Candidate, LedgerVerifyInputs, RegisterInputs, Verdict
from training.settings import Settings
from training.steps import ledger_verify, register

MODEL = "card_fraud"


@pytest.fixture
def place(tmp_path: Path, mlflow_database: Path) -> Settings:
    """Three entries in the ledger."""
    shutil.copy(mlflow_database, tmp_path)
    settings = Settings(home=tmp_path / "home", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    for number in range(3):
        Ledger(settings.ledger).append("note", MODEL, {"number": number}, str(number))
    return settings


def registered(settings: Settings) -> ModelVersion:
    """A version that the step `register` has registered."""
    from mlflow import MlflowClient

    artifact = Path(settings.work) / MODEL / "artifacts" / "a"
    digest = make_artifact(artifact, MODEL).digest
    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    found = client.get_experiment_by_name(MODEL)
    experiment = found.experiment_id if found else client.create_experiment(MODEL, str(settings.home / "runs"))
    run = client.create_run(experiment).info.run_id
    client.log_artifacts(run, str(artifact), "served")
    verdict = Verdict(
        promote=True, reasons=[], primary="roc_auc", challenger={}, champion=None, difference=None, confidence=0.9
    )
    challenger = Candidate(estimator="mlp", run_id=run, artifact_uri=str(artifact), digest=digest)
    inputs = RegisterInputs(model=MODEL, challenger=challenger, verdict=verdict, champion_version=None)
    return Registry(settings.tracking_uri).get(MODEL, register.run(inputs, settings).version)


def verify(settings: Settings) -> tuple[int, int]:
    result = ledger_verify.run(LedgerVerifyInputs(model=MODEL), settings)
    return result.entries, result.anchors


def test_each_version_anchors_the_ledger_of_its_time(place: Settings) -> None:
    assert verify(place) == (3, 0)
    registered(place)
    Ledger(place.ledger).append("note", MODEL, {}, "later")
    registered(place)
    assert verify(place) == (4, 2)


def test_a_chain_written_anew_is_found(place: Settings) -> None:
    """Its hashes fit together, so that only the anchor knows better."""
    registered(place)
    shutil.rmtree(Path(place.ledger, MODEL))
    for number in range(3):
        Ledger(place.ledger).append("note", MODEL, {"number": 10 * number}, str(number))
    with pytest.raises(DataContractError, match=r"Version 1 .*00000002.json has another hash"):
        verify(place)


def test_entries_cut_off_at_the_end_are_found(place: Settings) -> None:
    registered(place)
    Path(place.ledger, MODEL, "00000002.json").unlink()
    assert Ledger(place.ledger).problems(MODEL) == []
    with pytest.raises(DataContractError, match=r"00000002.json is missing: the end of the chain was removed"):
        verify(place)


def test_an_altered_entry_is_named_before_anything_else(place: Settings) -> None:
    registered(place)
    path = Path(place.ledger, MODEL, "00000001.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"body": {"number": 7}}))
    with pytest.raises(DataContractError, match="it was altered"):
        verify(place)


def test_while_mlflow_is_away_the_chain_alone_is_checked(place: Settings, caplog: pytest.LogCaptureFixture) -> None:
    away = Settings(**{**place.model_dump(), "tracking_uri": "http://127.0.0.1:9"})
    assert verify(away) == (3, 0)
    assert "Not compared with the anchors in MLflow" in caplog.text
