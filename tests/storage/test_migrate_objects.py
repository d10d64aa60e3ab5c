"""State of the layout before in an object store becomes that of this one, whatever is killed on the way."""

from pathlib import Path

import pandas as pd
import pytest

from testing.spec_files import MODEL, SOURCE
from tests.cases import others_long
from tests.feature_repo.payments_and_features import compute, day, payments, put, rows_of
from tests.steps.prediction_tables import prediction_table
from training import storage
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.ledger import Ledger
from training.adapters.logged_predictions import Predictions
from training.contract.base import Days
from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec
from training.layout import MARKER, layout_of, require_layout
from training.migrate import migrate
from training.settings import Settings

pytestmark = pytest.mark.ci

DAYS = 3


def older(bucket: str, home: Path, spec: ModelSpec) -> tuple[Settings, pd.DataFrame]:
    """State in `bucket` as the version before left it, and its events."""
    places = {f"{name}_uri": f"{bucket}/{name}" for name in ("landing", "lake", "work", "ledger")}
    settings = Settings(home=home, tracking_uri=f"sqlite:///{home}/mlflow.db", **places)
    events, labels = payments(DAYS)
    put(settings, events, labels)
    compute(settings, 0, DAYS + 1)
    lake = Lake(settings.lake, SOURCE, MODEL)
    lake.overwrite(PREDICTIONS, prediction_table(spec, events.assign(score=0.5)), ["day"])
    Ledger(settings.ledger).append("request", MODEL, {"id": "r"}, "r")
    storage.write(storage.join(settings.landing, MODEL, "events", "2026-01-05.parquet"), b"rows")
    predictions = storage.join(settings.lake, SOURCE, PREDICTIONS, MODEL)
    storage.move(predictions, storage.join(settings.lake, MODEL, PREDICTIONS))
    for table in storage.folders(storage.join(settings.lake, SOURCE)):
        storage.move(storage.join(settings.lake, SOURCE, table), storage.join(settings.lake, MODEL, table))
    for folder in (settings.lake, settings.ledger):
        storage.remove(storage.join(folder, MARKER))
    return settings, events


@pytest.mark.parametrize("killed_after", others_long([2, None, 0, 1, 4]))
def test_everything_moves_wherever_it_was_killed(
    s3: str, tmp_path: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, killed_after: int | None
) -> None:
    settings, events = older(f"{s3}/migrated-{killed_after}", tmp_path, spec)
    with pytest.raises(ConfigError, match="has layout 1, this version needs 2"):
        require_layout(settings)
    before = [each.name for each in storage.files(storage.join(settings.lake, MODEL, EVENTS, "_delta_log"))]
    shown = migrate(settings, apply=False)
    assert f"move {settings.lake}/{MODEL}/events to {settings.lake}/{SOURCE}/events" in shown
    assert layout_of(settings.lake) == 1
    if killed_after is not None:
        left, move = [killed_after], storage.move

        def dying(source: str, target: str) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            move(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(storage, "move", dying)
            with pytest.raises(KeyboardInterrupt):
                migrate(settings, apply=True)
        assert layout_of(settings.lake) == 1
    migrate(settings, apply=True)

    require_layout(settings)
    assert migrate(settings, apply=True) == []
    lake = Lake(settings.lake, SOURCE, MODEL)
    assert lake.scan(EVENTS).count_rows() == len(events)
    after = [each.name for each in storage.files(storage.join(settings.lake, SOURCE, EVENTS, "_delta_log"))]
    assert after == before
    logged = Predictions(lake, spec, lake.version(PREDICTIONS))
    assert len(logged.answered(Days(start=day(0), end=day(DAYS)), ["transaction_id"])) == len(events)
    assert storage.folders(storage.join(settings.lake, MODEL)) == []
    assert storage.read(storage.join(settings.landing, SOURCE, "events", "2026-01-05.parquet")) == b"rows"
    assert [entry.key for entry in Ledger(settings.ledger).entries(MODEL)] == ["r"]
    # The next steps go on from there: the same features, and one version more.
    rows = rows_of(settings, "customer_features")
    compute(settings, 0, DAYS + 1)
    pd.testing.assert_frame_equal(rows_of(settings, "customer_features"), rows)
