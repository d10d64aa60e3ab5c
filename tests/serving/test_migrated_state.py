"""The service on state that was migrated from the layout before: its online rows, and one more row in its log."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from testing.serving_stack import running_stack
from testing.waiting import eventually
from tests.feature_repo.payments_and_features import MODEL, SOURCE, compute, midnight, payments, put
from tests.serving.prediction_rows import logged_rows
from tests.steps.prediction_tables import prediction_table
from training import storage
from training.adapters.features import OnlineRows
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.model_spec import load_model_spec
from training.layout import MARKER, layout_of
from training.migrate import migrate
from training.settings import Settings

pytestmark = pytest.mark.long
DAYS = 12


def leave_as_the_version_before(settings: Settings) -> int:
    """Lake and online rows in the layout before. Returns the rows of predictions."""
    spec, (events, labels) = load_model_spec(MODEL), payments(DAYS)
    put(settings, events, labels)
    OnlineRows(settings, spec.source).materialize(compute(settings, 0, DAYS + 1))
    lake = Lake(settings.lake, SOURCE, MODEL)
    lake.overwrite(PREDICTIONS, prediction_table(spec, events.assign(score=0.5)), ["day"])
    home, old = Path(settings.lake), Path(settings.lake, MODEL)
    storage.move(str(home / SOURCE / PREDICTIONS / MODEL), str(old / PREDICTIONS))
    for table in storage.folders(str(home / SOURCE)):
        if table != PREDICTIONS:
            storage.move(str(home / SOURCE / table), str(old / table))
    storage.remove_folder(str(home / SOURCE))
    (home / MARKER).unlink()
    feast = Path(settings.feature_registry).parent
    for ending in ("online.json", "applied"):
        (feast / f"{SOURCE}.{ending}").rename(feast / f"{MODEL}.{ending}")
    return len(events)


def test_a_service_answers_with_the_online_rows_and_logs_beside_the_rows_from_before(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    rows = leave_as_the_version_before(settings)
    assert layout_of(settings.lake) == 1
    migrate(settings, apply=True)
    with running_stack(tmp_path) as stack:
        stack.promote(stack.register(bias=-1.0))
        asked: dict[str, Any] = {"transaction_id": 10**6, "customer_id": 0, "terminal_id": 100}
        at = midnight(DAYS) + timedelta(hours=5)
        answer = stack.predict(**asked, event_time=at.isoformat())
        assert answer.status_code == 200, answer.text
        assert answer.json()["features_defaulted"] is False
        assert answer.json()["feature_timestamp"].startswith(f"{midnight(DAYS):%Y-%m-%d}")
        lake = Lake(settings.lake, SOURCE, MODEL)
        found = eventually(lambda: len(logged_rows(lake)) > rows and logged_rows(lake))
        assert len(found) == rows + 1
        [logged] = [row for row in found if row["event"]["transaction_id"] == 10**6]
        assert logged["prediction_id"] == answer.json()["prediction_id"]
