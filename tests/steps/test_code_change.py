"""Other training code than the champion's becomes one granted request, which wakes the training DAG; and no other.

MLflow is real (SQLite), and so are lake, ledger and broker.
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from perennial_airflow.requests import retrain_event, training_request

from testing.spec_files import raw_specs
from training import code, code_change
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, Registry
from training.contract.messages import DecideRetrainingInputs, DriftResult
from training.contract.model_spec import ModelSpec
from training.contract.source_spec import SourceSpec
from training.settings import Settings
from training.steps import decide_retraining

SOURCE, MODEL = "card_payments", "card_fraud"
DAY = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Path:
    """A registry with a version that no run tag says anything about, to be copied."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(mlflow_database, folder)
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri, uri)
    experiment = client.create_experiment(MODEL, artifact_location=str(folder / "artifacts"))
    Registry(uri).register(MODEL, client.create_run(experiment).info.run_id, "digest", {})
    return folder / "mlflow.db"


@pytest.fixture
def deployed(template: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings as the process's environment has them, with a champion, and five days of events and labels."""
    shutil.copy(template, settings.tracking_uri.removeprefix("sqlite:///"))
    Registry(settings.tracking_uri).set_alias(MODEL, CHAMPION, 1)
    _land(settings, 5)
    monkeypatch.setenv("CT_HOME", str(settings.home))
    monkeypatch.setenv("CT_TRACKING_URI", settings.tracking_uri)
    return settings


def _land(settings: Settings, days: int) -> None:
    noons = [DAY + timedelta(days=i) for i in range(days)]
    for feed, column in {"events": "event_time", "labels": "reported_at"}.items():
        table = pa.table(
            {column: pa.array(noons, pa.timestamp("us", tz="UTC")), "partition": [str(d.date()) for d in noons]}
        )
        Lake(settings.lake, SOURCE, MODEL).replace(feed, table, "true", ["partition"])


def _trained_by(settings: Settings, digest: str) -> None:
    from mlflow import MlflowClient

    run = Registry(settings.tracking_uri).get(MODEL, 1).run_id
    MlflowClient(settings.tracking_uri).set_tag(run, code_change.TAG, digest)


def _requests(settings: Settings) -> list[str]:
    return [entry.key for entry in Ledger(settings.ledger).entries(MODEL, "request")]


def test_other_code_asks_once_and_the_granted_request_wakes_the_training_dag(
    deployed: Settings, spec: ModelSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    _trained_by(deployed, "0123456789abcdef")
    assert code_change.main() == 0
    assert '"granted":true' in capfd.readouterr().out.replace(" ", "")
    (asked,) = _requests(deployed)
    assert asked.startswith("code-")
    _land(deployed, 6)
    assert code_change.main() == 0, "deployed again, a day later"
    assert _requests(deployed) == [asked]

    # The drift DAG's next look, which finds nothing by itself, rings for it …
    quiet = DriftResult(outcome="measured", as_of=DAY.date() + timedelta(days=6), champion_version=1)
    looked = decide_retraining.run(DecideRetrainingInputs(model=MODEL, drift=quiet), deployed)
    event = retrain_event(looked.model_dump(mode="json"), {})
    assert event is not None
    assert event["request_id"] == asked

    # … and the training run that the event starts takes it up.
    class Run:
        run_id, run_type = "asset_triggered__1", "asset_triggered"

    class Event:
        extra = event

    context = {"dag_run": Run, "triggering_asset_events": {"card_fraud_retrain": [Event]}, "params": {}}
    taken = decide_retraining.run(DecideRetrainingInputs(model=MODEL, **training_request(context)), deployed)
    assert (taken.granted, taken.trigger) == (True, "code")
    assert taken.reason == f"The training code is now {code.training_code(deployed, spec)}"
    assert code_change.main() == 0
    assert decide_retraining.run(DecideRetrainingInputs(model=MODEL, drift=quiet), deployed).waiting == []


def test_the_champions_own_code_asks_for_nothing(deployed: Settings, spec: ModelSpec) -> None:
    _trained_by(deployed, code.training_code(deployed, spec))
    assert code_change.main() == 0
    assert _requests(deployed) == []


def test_without_a_champion_there_is_nothing_to_train_anew(deployed: Settings) -> None:
    Registry(deployed.tracking_uri).remove_alias(MODEL, CHAMPION)
    assert code_change.main() == 0
    assert _requests(deployed) == []


def test_a_champion_that_nobody_knows_the_code_of_is_trained_anew(deployed: Settings) -> None:
    assert code_change.main() == 0
    assert len(_requests(deployed)) == 1


def test_the_code_is_what_a_model_learns_from(
    settings: Settings, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = code.training_code(settings, spec)
    assert now == code.training_code(settings, spec.model_copy(update={"title": "Another title"}))
    retrained = spec.training.model_copy(update={"window_days": spec.training.window_days + 1})
    assert now != code.training_code(settings, spec.model_copy(update={"training": retrained}))
    features = Path(shutil.copytree(settings.feature_repo, tmp_path / "features"))
    elsewhere = settings.model_copy(update={"feature_repo": features})
    assert now == code.training_code(elsewhere, spec)
    with (features / "card_payments.py").open("a") as file:
        file.write("# another feature\n")
    assert now != code.training_code(elsewhere, spec)
    _, source = raw_specs()
    source["features"]["tables"]["customer_features"]["windows"] = ["1d", "7d", "31d"]
    other = spec.model_copy(update={"source": SourceSpec.model_validate(source)})
    assert now != code.training_code(settings, other)
    monkeypatch.setattr(code, "PACKAGE", Path(shutil.copytree(code.PACKAGE, tmp_path / "training")))
    assert now == code.training_code(settings, spec)
    (code.PACKAGE / "steps" / "audit.py").write_text("# fits nothing\n")
    assert now == code.training_code(settings, spec)
    edited = ["estimators/mlp.py", "tuning.py", "adapters/parameter_search.py", "domain/tasks/binary.py"]
    found = {now}
    for name in edited:
        (code.PACKAGE / name).write_text("# something else\n")
        found.add(code.training_code(settings, spec))
    assert len(found) == 1 + len(edited)


def test_no_registry_is_a_failure_that_says_so(deployed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert code_change.main() == 75
    monkeypatch.setenv("CT_TRAKING_URI", "typo")
    assert code_change.main() == 78
