"""A model that no service serves: scored in batch, monitored on that, and rolled out without traffic."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from testing.serving_stack import registered
from tests.steps.monitored_model import DRIFTED, MODEL, MonitoredModel
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.registry import CHAMPION, Registry
from training.contract.base import Days
from training.contract.messages import (
    AuditInputs,
    DecideRetrainingInputs,
    DriftInputs,
    PerformanceInputs,
    RollbackInputs,
    RolloutInputs,
    ScoreInputs,
)
from training.contract.model_spec import MODELS_DIR
from training.settings import Settings
from training.steps import audit, decide_retraining, drift, performance, rollback, rollout, score
from training.workspace import served_artifact

pytestmark = pytest.mark.ci


@pytest.fixture
def settings(world: MonitoredModel, tmp_path: Path) -> Settings:
    """A copy of the world, with a spec of a model that is scored in batch only."""
    shutil.copytree(world.settings.home, tmp_path / "home")
    shutil.rmtree(tmp_path / "home" / "lake" / "card_payments" / PREDICTIONS, ignore_errors=True)
    shutil.copy(world.settings.tracking_uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    spec |= {"serving": None, "scoring": {"when": "new_data", "maximum_age_days": 14}}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
    return Settings(
        home=tmp_path / "home",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        models_dir=tmp_path / "models",
        # Nobody listens there.
        serving_urls="http://127.0.0.1:9",
    )


def test_drift_performance_and_audit_measure_what_was_scored(settings: Settings) -> None:
    scored = score.run(ScoreInputs(model=MODEL), settings)
    lake = Lake(settings.lake, "card_payments", MODEL)
    assert (scored.outcome, scored.rows) == ("scored", lake.scan(PREDICTIONS).count_rows())
    watched = drift.run(DriftInputs(model=MODEL), settings)
    assert watched.outcome == "measured"
    assert "outputs: logged" in Path(str(watched.report_html)).read_text()
    given = {"model": MODEL, "snapshot": watched.snapshot}
    measured = performance.run(PerformanceInputs.model_validate(given), settings)
    assert measured.outcome == "measured"
    assert measured.rows > 1000
    assert measured.window == Days.ending(DRIFTED - timedelta(days=7), 7)
    assert measured.current.keys() == measured.reference.keys()
    audited = audit.run(AuditInputs.model_validate(given), settings)
    assert (audited.outcome, audited.share) == ("measured", 0)
    assert audited.rows > 1000
    given = {"model": MODEL, "drift": watched, "performance": measured}
    decided = decide_retraining.run(DecideRetrainingInputs.model_validate(given), settings)
    assert decided.reason


@pytest.mark.long
def test_a_version_becomes_the_champion_without_traffic_and_scores_what_is_next(
    settings: Settings, tmp_path: Path
) -> None:
    registry = Registry(settings.tracking_uri)
    first = registry.by_alias(MODEL, CHAMPION)
    assert first is not None
    second = registered(settings, Path(shutil.copytree(served_artifact(settings, first), tmp_path / "second")))
    rolled_out = rollout.run(RolloutInputs(model=MODEL, version=second.version, reason="better"), settings)
    assert (rolled_out.version, rolled_out.previous_version) == (second.version, first.version)
    assert (rolled_out.replicas, rolled_out.stages) == ([], [])
    assert score.run(ScoreInputs(model=MODEL), settings).champion_version == second.version
    returned = rollback.run(RollbackInputs(model=MODEL, reason="worse", run="r"), settings)
    assert returned.version == first.version
    assert score.run(ScoreInputs(model=MODEL), settings).outcome == "nothing new"
