"""The code of docs/notebook.md runs against real state, and says the truth."""

import re
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perennial
from tests.steps.monitored_model import MODEL, SOURCE, MonitoredModel
from tests.steps.prediction_tables import prediction_table
from training.adapters.features import Features
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry
from training.contract.errors import InputError
from training.contract.messages import DatasetInputs
from training.contract.model_spec import load_model_spec
from training.domain.rollout import ROLLOUT, Move
from training.settings import ROOT, Settings, load_settings
from training.steps import dataset

pytestmark = pytest.mark.long

AS_OF = date(2026, 3, 20)


@pytest.fixture
def state(world: MonitoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of `world` in the environment, with a copy of its lake, which other tests write to."""
    shutil.copytree(world.settings.lake, tmp_path / "lake")
    monkeypatch.setenv("CT_HOME", str(world.settings.home))
    monkeypatch.setenv("CT_LAKE_URI", str(tmp_path / "lake"))
    monkeypatch.setenv("CT_WORK_URI", str(tmp_path / "work"))
    monkeypatch.setenv("CT_LEDGER_URI", str(tmp_path / "ledger"))
    monkeypatch.setenv("CT_TRACKING_URI", world.settings.tracking_uri)
    return load_settings()


@pytest.fixture
def logged(state: Settings, world: MonitoredModel, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Ten events of a day as the champion answered them, in the prediction log."""
    spec = load_model_spec(MODEL)
    rows = perennial.load_features(MODEL, AS_OF, days=1).head(10)
    registry = Registry(state.tracking_uri)
    folder = registry.download(world.champion, tmp_path_factory.mktemp("served") / "served")
    model = OnnxModel.load(folder)
    names = model.metadata.feature_names
    scores = model.task.outputs(model.score(rows[names].to_numpy(np.float32)))[:, -1]
    features = [list(zip(names, map(float, row), strict=True)) for row in rows[names].to_numpy(np.float32)]
    ids = [f"notebook-{i}" for i in range(len(rows))]
    made = rows.assign(
        score=scores, features=features, prediction_id=ids, predicted_at=pd.Timestamp("2036-01-01", tz="UTC")
    )
    table = prediction_table(spec, made, model_version=world.champion.version)
    Lake(state.lake, SOURCE, MODEL).replace("predictions", table, f"day = '{AS_OF.replace(day=19)}'", ["day"])
    return made


def test_the_code_of_the_page_runs(logged: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    names = {"prediction_id": logged["prediction_id"].iloc[0]}
    for block in blocks:
        exec(block, names)
    said = capsys.readouterr().out
    assert "payment_amount" in said
    assert "card_fraud: prediction notebook-0" in said


def test_events_have_the_labels_that_were_known_then(state: Settings) -> None:
    events = perennial.load_events(MODEL, AS_OF, days=14)
    assert events["event_time"].between("2026-03-06", "2026-03-20").all()
    assert events["event_time"].is_monotonic_increasing
    known = events["is_fraud"].notna()
    assert 0.3 < known.mean() < 0.9
    assert (events["_reported_at"][known] < pd.Timestamp(AS_OF, tz="UTC")).all()


def test_features_and_dataset_are_those_of_the_steps(state: Settings, world: MonitoredModel) -> None:
    made = perennial.load_dataset(MODEL, world.dataset.as_of)
    # Other tests may have made versions of tables since the dataset of `world`, with the same rows.
    of_step = dataset.run(DatasetInputs(model=MODEL, as_of=world.dataset.as_of), state)
    assert made.manifest.dataset_id == of_step.dataset_id
    pd.testing.assert_frame_equal(made.holdout, pd.read_parquet(of_step.holdout.uri))
    pd.testing.assert_frame_equal(made.holdout, pd.read_parquet(world.dataset.holdout.uri))
    rows = perennial.load_features(MODEL, world.dataset.holdout.days.end, days=3).set_index("transaction_id")
    names = Features(state, load_model_spec(MODEL)).names()
    both = made.holdout.set_index("transaction_id")
    both = both[both["event_time"] >= pd.Timestamp(world.dataset.holdout.days.end, tz="UTC") - pd.Timedelta(days=3)]
    assert len(both) > 100
    pd.testing.assert_frame_equal(rows.loc[both.index, names], both[names])


def test_a_decision_is_explained_with_features_contributions_and_history(
    logged: pd.DataFrame, state: Settings, world: MonitoredModel
) -> None:
    version = world.champion.version
    move = Move(number=9001, kind=ROLLOUT, version=version, champion=None, previous=None, reason="better than before")
    Ledger(state.ledger).append(ROLLOUT, MODEL, move.model_dump(mode="json"), move.key)
    of = logged.iloc[3]
    decision = perennial.explain_decision(of["prediction_id"])
    assert decision.model == MODEL
    assert decision.event["amount"] == of["amount"]
    assert decision.prediction["model_version"] == version
    assert "champion" in decision.aliases
    assert decision.features["payment_amount"] == pytest.approx(of["amount"], rel=1e-6)
    assert decision.explanation is not None
    total = decision.explanation["base_score"] + sum(decision.explanation["contributions"].values())
    assert total == pytest.approx(decision.prediction["outputs"]["score"], abs=1e-5)
    assert [entry.body["reason"] for entry in decision.history if entry.kind == ROLLOUT] == ["better than before"]
    assert "better than before" in str(decision)


def test_an_unknown_prediction_is_an_error_that_says_where_it_looked(state: Settings) -> None:
    with pytest.raises(InputError, match=r"No prediction 'nobody' in the logs of .*card_fraud.* in .*lake"):
        perennial.explain_decision("nobody")


def test_a_model_without_data_says_so(state: Settings) -> None:
    with pytest.raises(InputError, match="No events of flights in"):
        perennial.load_events("flight_delay")
