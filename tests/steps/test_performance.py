"""The performance step: logged predictions of a real champion against labels that have matured."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.cases import others_long
from tests.steps.monitored_model import DRIFTED, MODEL, SOURCE, MonitoredModel, copied
from tests.steps.prediction_tables import prediction_table
from training.adapters.datasets import Rows
from training.adapters.features import Features
from training.adapters.lake import Lake
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry
from training.adapters.registry.connection import connect
from training.contract.base import Days
from training.contract.errors import InputError
from training.contract.messages import PerformanceInputs, PerformanceResult, Snapshot
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.contract.tasks import BinaryTask
from training.domain.encoding import encoded
from training.domain.estimated_performance import have_been_right
from training.domain.looks import chance_of_error
from training.settings import Settings
from training.steps import performance
from training.workspace import served_artifact

#: Seven days whose labels have all been reported before DRIFTED.
WINDOW = Days(start=DRIFTED - timedelta(days=14), end=DRIFTED - timedelta(days=7))
Scores = Callable[[pd.Series], np.ndarray]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _events(world: MonitoredModel, days: Days) -> pd.DataFrame:
    within = (ds.field("event_time") >= _midnight(days.start)) & (ds.field("event_time") < _midnight(days.end))
    columns = ["transaction_id", "event_time", "customer_id", "terminal_id", "amount"]
    events = world.lake.scan("events").to_table(columns, filter=within).to_pandas()
    labels = world.lake.scan("labels").to_table(["transaction_id", "is_fraud"]).to_pandas()
    # Delta writes the rows of one commit in any order, and `_good` and `_blind` draw row by row.
    return events.sort_values("transaction_id").merge(labels, how="left").fillna({"is_fraud": 0})


def _predict(world: MonitoredModel, days: Days, scores: Scores, version: int = 1, later: int = 0) -> pd.DataFrame:
    """Predictions for all events of `days`, as the service logs them: `later` seconds after the event."""
    events = _events(world, days)
    return events.assign(
        prediction_id=[f"{i}-{version}-{later}" for i in range(len(events))],
        predicted_at=events["event_time"] + pd.Timedelta(seconds=later),
        score=scores(events["is_fraud"]),
        model_version=version,
    )


def _log(world: MonitoredModel, *predictions: pd.DataFrame) -> pd.DataFrame:
    """Put exactly these into the lake's prediction log."""
    rows = pd.concat(predictions, ignore_index=True)
    world.lake.overwrite("predictions", prediction_table(load_model_spec(MODEL), rows), ["day"])
    return rows


def _own(world: MonitoredModel, folder: Path) -> MonitoredModel:
    """A copy of the world, for a test that writes more than predictions: other files have the same world."""
    settings = copied(world, folder)
    return replace(world, settings=settings, lake=Lake(settings.lake, SOURCE, MODEL))


@dataclass(frozen=True)
class Good:
    """Predictions of WINDOW with skill, and what the step finds in a log of exactly these."""

    rows: pd.DataFrame
    result: PerformanceResult


@pytest.fixture(scope="module")
def good(world: MonitoredModel) -> Good:
    rows = _log(world, _predict(world, WINDOW, _good))
    return Good(rows, _run(world))


def _good(frauds: pd.Series) -> np.ndarray:
    noise = np.random.default_rng(0).random(len(frauds))
    return 0.9 * frauds.to_numpy() * (noise > 0.1) + 0.1 * noise


def _sure(frauds: pd.Series) -> np.ndarray:
    """Its log loss is small, too."""
    return np.where(frauds.to_numpy() == 1, 0.9, 0.001)


def _champions_own(world: MonitoredModel) -> pd.DataFrame:
    """What the champion would have logged for every payment of its holdout."""
    rows = Rows(pq.read_table(world.dataset.holdout.uri), load_model_spec(MODEL))
    folder = Path(world.settings.work) / "own"
    model = OnnxModel.load(Registry(world.settings.tracking_uri).download(world.champion, folder))
    scores = model.score(rows.features(model.metadata.columns))
    by_payment = pd.Series(scores, index=rows.table["transaction_id"].to_numpy())
    predictions = _predict(world, world.dataset.holdout.days, _blind, later=1)
    return predictions.assign(score=predictions["transaction_id"].map(by_payment))


def _newest_scores(world: MonitoredModel, days: Days, later: int = 1) -> pd.DataFrame:
    """What the champion logs for the events of `days`, with features as they were known at each."""
    spec = load_model_spec(MODEL)
    model = OnnxModel.load(served_artifact(world.settings, world.champion))
    events = _events(world, days).rename(columns={"is_fraud": "label"})
    made = Features(world.settings, spec).historical(events, world.lake.versions(*spec.source.entities))
    made = made.set_index("transaction_id").loc[events["transaction_id"]]
    columns = model.metadata.columns
    values = encoded({column.name: made[column.name].to_numpy() for column in columns}, columns)
    names = [column.name for column in columns]
    logged = [list(zip(names, map(float, row), strict=True)) for row in values]
    return _predict(world, days, lambda _: model.score(values), later=later).assign(features=logged)


def _often(folder: Path, world: MonitoredModel) -> Settings:
    """Windows of two days, of which three lie between the holdout and the newest labels."""
    fields = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    fields["monitoring"] = {"window_days": 2, "minimum_rows": 100, "minimum_class_rows": 3}
    fields["monitoring"]["maximum_performance_drop"] = 0.3
    (folder / f"{MODEL}.yaml").write_text(yaml.safe_dump(fields))
    return world.settings.model_copy(update={"models_dir": folder})


def test_performance_is_estimated_before_the_labels_come(world: MonitoredModel, tmp_path: Path) -> None:
    settings = _often(tmp_path, world)
    days = Days(start=world.dataset.holdout.days.end, end=DRIFTED)
    _log(world, _newest_scores(world, days))
    found = performance.run(_inputs(world, DRIFTED, 1), settings).estimated
    assert found is not None
    assert found.window == Days.ending(DRIFTED, 2)
    assert found.low < found.metrics["average_precision"] < found.high
    assert found.test is not None
    matured = DRIFTED - timedelta(days=7)
    assert [each.window.end for each in found.compared] == [matured - timedelta(days=2 * i) for i in range(3)]
    assert found.trusted == have_been_right(found.compared, 0.3)
    for each in found.compared[2:]:
        alone = performance.run(_inputs(world, each.window.end + timedelta(days=7), 1), settings)
        assert alone.current["average_precision"] == pytest.approx(each.realised)
        # What was estimated then, without these labels, is what is compared with them now.
        then = performance.run(_inputs(world, each.window.end, 1), settings).estimated
        assert then is not None
        assert then.metrics["average_precision"] == pytest.approx(each.estimated)
        assert each.inside == (then.low <= each.realised <= then.high)
        assert each.standard_error == pytest.approx(then.standard_error)
    client = connect(world.settings.tracking_uri)
    points = client.get_metric_history(world.champion.run_id, "estimated/average_precision")
    assert found.metrics["average_precision"] in [p.value for p in points if p.step == DRIFTED.toordinal()]
    errors = client.get_metric_history(world.champion.run_id, "estimated/average_precision/error")
    assert found.compared[0].error in [p.value for p in errors if p.step == DRIFTED.toordinal()]


@pytest.mark.long
def test_a_fall_of_performance_is_diagnosed(world: MonitoredModel, caplog: pytest.LogCaptureFixture) -> None:
    rows = _newest_scores(world, WINDOW)
    _log(world, rows)
    assert _run(world).diagnosis is None
    large = rows["amount"] > 60
    _log(world, rows.assign(score=rows["score"].mask(large, 0.99 - 0.98 * rows["is_fraud"])))
    with caplog.at_level("INFO", logger="perennial"):
        result = _run(world)
    assert result.degraded
    found = result.diagnosis
    assert found is not None
    assert found.now > found.before
    first = found.segments[0]
    assert "output score > " in first.where
    assert "output score" in found.moved
    assert 0 < first.low < first.loss - first.loss_before < first.high
    assert f"It rose where {first}" in caplog.text


@pytest.mark.long
def test_a_fall_for_new_entities_is_diagnosed(world: MonitoredModel, tmp_path: Path) -> None:
    """A third of the customers comes with the window, with frauds that no feature shows."""
    world = _own(world, tmp_path)
    rows = _log(world, _newest_scores(world, WINDOW))
    new = pd.Series(np.sort(rows["customer_id"].unique())).sample(frac=0.33, random_state=1)
    events, labels = (world.lake.scan(table).to_table() for table in ("events", "labels"))
    times, customers = (events[name].to_pandas() for name in ("event_time", "customer_id"))
    come = events.filter(pa.array((times >= _midnight(WINDOW.start)) | ~customers.isin(new)))
    world.lake.replace("events", come, "partition = 'all'", ["partition"])
    frauds = rows.loc[rows["customer_id"].isin(new), "transaction_id"].sort_values().sample(frac=0.3, random_state=1)
    known = labels.to_pandas().assign(
        is_fraud=lambda known: known["is_fraud"].mask(known["transaction_id"].isin(frauds), 1)
    )
    reported = pa.Table.from_pandas(known, schema=labels.schema, preserve_index=False)
    world.lake.replace("labels", reported, "partition = 'all'", ["partition"])
    result = _run(world)
    assert result.degraded
    found = result.diagnosis
    assert found is not None
    where = "days since customer_id was first seen"
    assert f"{where} ≤ " in found.segments[0].where
    assert found.segments[0].share_before < 0.05 < found.segments[0].share
    assert where in found.moved


@pytest.mark.long
def test_a_version_without_rows_of_its_holdout_is_not_estimated(
    world: MonitoredModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As versions of earlier releases: their runs have none."""
    days, world = Days.ending(DRIFTED, 7), _own(world, tmp_path)
    _log(world, _predict(world, WINDOW, _good), _newest_scores(world, days))
    client = connect(world.settings.tracking_uri)
    run = client.create_run(client.get_run(world.champion.run_id).info.experiment_id)
    folder = Registry(world.settings.tracking_uri).download(world.champion, tmp_path / "served")
    client.log_artifacts(run.info.run_id, str(folder), "served")
    registry = Registry(world.settings.tracking_uri)
    old = registry.register(MODEL, run.info.run_id, world.champion.digest, {})
    rows = [_predict(world, each, _good, version=old.version) for each in (WINDOW, days)]
    _log(world, *rows)
    with caplog.at_level("INFO", logger="perennial"):
        result = _run(world, version=old.version)
    assert (result.outcome, result.estimated) == ("measured", None)
    assert "has no holdout rows" in caplog.text


def _blind(frauds: pd.Series) -> np.ndarray:
    return np.random.default_rng(1).random(len(frauds))


def _run(world: MonitoredModel, as_of: date = DRIFTED, version: int = 1) -> PerformanceResult:
    return performance.run(_inputs(world, as_of, version), world.settings)


def _inputs(world: MonitoredModel, as_of: date | None, version: int | None) -> PerformanceInputs:
    versions = world.lake.versions("events", "labels", "predictions")
    snapshot = Snapshot(as_of=as_of, table_versions=versions, champion_version=version)
    return PerformanceInputs(model=MODEL, snapshot=snapshot)


def test_good_predictions_are_measured_like_the_holdout(good: Good) -> None:
    rows, result = good.rows, good.result
    assert (result.outcome, result.window, result.degraded) == ("measured", WINDOW, False)
    assert set(result.current) == set(result.reference) == {*BinaryTask.METRICS}
    assert result.table_versions.keys() == {"predictions", "labels", "events"}
    # Customers whose fraud was known before are left out, the others are all there.
    assert 0.7 * len(rows) < result.rows < len(rows)


@pytest.mark.long
def test_the_entity_of_evaluation_may_be_the_id(world: MonitoredModel, tmp_path: Path) -> None:
    rows = _log(world, _predict(world, WINDOW, _good))
    text = (MODELS_DIR / f"{MODEL}.yaml").read_text()
    (tmp_path / f"{MODEL}.yaml").write_text(text.replace("entity: customer_id", "entity: transaction_id"))
    result = performance.run(_inputs(world, DRIFTED, 1), world.settings.model_copy(update={"models_dir": tmp_path}))
    assert (result.outcome, result.rows) == ("measured", len(rows))


@pytest.mark.long
def test_on_the_holdouts_own_days_the_champion_does_as_on_the_holdout(world: MonitoredModel) -> None:
    _log(world, _champions_own(world))
    result = _run(world, world.dataset.as_of)
    holdout = pq.read_table(world.dataset.holdout.uri).to_pandas().query("not _excluded")
    assert result.window == world.dataset.holdout.days
    assert (result.rows, result.counts["positive"]) == (len(holdout), holdout["is_fraud"].sum())
    assert result.current == pytest.approx(result.reference)


def test_the_numbers_are_those_of_scikit_learn(world: MonitoredModel, good: Good) -> None:
    rows, result = good.rows, good.result
    frauds = _frauds(world, WINDOW.start - (world.dataset.holdout.days.start - world.dataset.train.days.start))
    known_since = rows["customer_id"].map(frauds.groupby("customer_id")["reported_at"].min())
    counted = rows[~(known_since < rows["event_time"].dt.floor("D"))]
    assert (result.rows, result.counts["positive"]) == (len(counted), counted["is_fraud"].sum())
    expected = average_precision_score(counted["is_fraud"], counted["score"])
    assert result.current["average_precision"] == pytest.approx(expected)
    assert result.current["roc_auc"] == pytest.approx(roc_auc_score(counted["is_fraud"], counted["score"]))


def _frauds(world: MonitoredModel, since: date) -> pd.DataFrame:
    """Positive labels of events from `since` on, with their customers."""
    labels = world.lake.scan("labels").to_table().to_pandas().query("is_fraud == 1")
    events = world.lake.scan("events").to_table(["transaction_id", "customer_id", "event_time"]).to_pandas()
    return labels.merge(events[events.event_time >= _midnight(since)])


@pytest.mark.ci
def test_blind_predictions_have_degraded(world: MonitoredModel) -> None:
    _log(world, _predict(world, WINDOW, _blind))
    result = _run(world)
    assert (result.outcome, result.degraded) == ("measured", True)
    assert result.current["average_precision"] < result.reference["average_precision"] - 0.1


@pytest.mark.parametrize("good_days", others_long([3, 0]))
def test_a_degradation_is_dated(world: MonitoredModel, good_days: int) -> None:
    """From the day on which the predictions became blind: the training learns from what came after."""
    changed = WINDOW.start + timedelta(days=good_days)
    good = [_predict(world, Days(start=WINDOW.start, end=changed), _sure)] if good_days else []
    _log(world, *good, _predict(world, Days(start=changed, end=WINDOW.end), _blind))
    result = _run(world)
    assert (result.outcome, result.degraded, result.change) == ("measured", True, changed)


def test_what_has_not_degraded_has_no_change(good: Good) -> None:
    assert good.result.change is None


@pytest.mark.long
def test_the_windows_after_the_holdout_are_a_reference_too(world: MonitoredModel, tmp_path: Path) -> None:
    """Windows of two days: two good ones after the holdout, then one without skill."""
    settings, last = _often(tmp_path, world), Days.ending(WINDOW.end, 2)
    good = Days(start=world.dataset.holdout.days.end, end=last.start)
    _log(world, _predict(world, good, _good), _predict(world, last, _blind))
    alone = [
        performance.run(_inputs(world, good.start + timedelta(days=days + 7), 1), settings).current["average_precision"]
        for days in (2, 4)
    ]
    result = performance.run(_inputs(world, DRIFTED, 1), settings)
    assert (result.window, result.degraded) == (last, True)
    assert result.test is not None
    assert result.test.windows == 2
    before = [result.reference["average_precision"], *alone]
    assert result.test.drop == pytest.approx(sum(before) / 3 - result.current["average_precision"])


@pytest.mark.ci
def test_the_window_before_is_measured_too(
    world: MonitoredModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Windows of two days. With the first one and the one before, there are three tests."""
    settings, last = _often(tmp_path, world), Days.ending(WINDOW.end, 2)
    before = Days.ending(last.start, 2)
    _log(world, _predict(world, Days(start=world.dataset.holdout.days.end, end=last.end), _good))
    with caplog.at_level("INFO", logger="perennial"):
        found = performance.run(_inputs(world, DRIFTED, 1), settings).test
    assert found is not None
    assert f"  in {before} it was 0." in caplog.text
    assert 1 - found.confidence == pytest.approx(chance_of_error(0.95, found.look, 2) / 3)


def test_a_prediction_that_is_no_number_is_left_out_and_counted(world: MonitoredModel, good: Good) -> None:
    rows = good.rows
    _log(world, rows.assign(score=rows["score"].mask(rows.index % 20 == 0)))
    result = _run(world)
    assert result.outcome == "measured"
    assert 0 < result.not_finite < result.rows
    assert result.rows + result.not_finite == good.result.rows


@pytest.mark.long
def test_predictions_made_again_once_the_labels_are_in_hide_nothing(world: MonitoredModel) -> None:
    first, again = _predict(world, WINDOW, _blind, later=1), _predict(world, WINDOW, _good, later=8 * 24 * 3600)
    _log(world, first)
    alone = _run(world)
    _log(world, again, first)
    both = _run(world)
    assert both.degraded
    assert (both.rows, both.current) == (alone.rows, alone.current)


@pytest.mark.long
def test_other_versions_and_days_without_all_their_labels_do_not_count(world: MonitoredModel) -> None:
    _log(world, _predict(world, WINDOW, _good))
    alone = _run(world)
    other_days = [Days.ending(WINDOW.start, 3), Days(start=WINDOW.end, end=DRIFTED)]
    others = [_predict(world, days, _blind) for days in other_days]
    _log(world, _predict(world, WINDOW, _good), *others, _predict(world, WINDOW, _blind, version=2, later=9))
    both = _run(world)
    assert (both.rows, both.current) == (alone.rows, alone.current)


def test_predictions_of_another_artifact_with_the_champions_number_do_not_count(
    world: MonitoredModel, good: Good
) -> None:
    half = Days(start=WINDOW.start, end=WINDOW.start + timedelta(days=3))
    rest = Days(start=half.end, end=WINDOW.end)
    # Logged before digests were, by the champion, and by the artifact that had its number in a registry lost since.
    _log(world, _predict(world, half, _good))
    older = world.lake.scan("predictions").to_table().drop_columns(["model_digest"])
    world.lake.overwrite("predictions", older, ["day"])
    own = _predict(world, rest, _good).assign(model_digest=world.champion.digest)
    other = _predict(world, WINDOW, _blind, later=-9).assign(model_digest="f" * 64)
    table = prediction_table(load_model_spec(MODEL), pd.concat([own, other], ignore_index=True))
    world.lake.append_once("predictions", table, ["day"], "replica", 1)
    both = _run(world)
    assert both.rows == good.result.rows
    assert both.counts == good.result.counts


def test_what_scored_along_does_not_count(world: MonitoredModel, good: Good) -> None:
    answers = good.rows.assign(role="champion")
    _log(world, answers, _predict(world, WINDOW, _blind).assign(role="shadow"))
    assert _run(world).current == good.result.current


def test_labels_reported_after_the_horizon_are_not_used(world: MonitoredModel, good: Good, tmp_path: Path) -> None:
    world, before = _own(world, tmp_path), good.result
    _log(world, good.rows)
    labels = world.lake.scan("labels").to_table()
    wrong = labels.to_pandas().query("reported_at >= @start", local_dict={"start": _midnight(WINDOW.end)})
    wrong = wrong.assign(is_fraud=1, reported_at=_midnight(DRIFTED) + timedelta(hours=1))
    corrected = pa.concat_tables([labels, pa.Table.from_pandas(wrong, schema=labels.schema, preserve_index=False)])
    version = world.lake.replace("labels", corrected, "true", ["partition"])
    after = _run(world)
    later = _run(world, DRIFTED + timedelta(days=1))
    assert (after.rows, after.current, after.table_versions["labels"]) == (before.rows, before.current, version)
    assert later.counts["positive"] > after.counts["positive"]


def test_few_labels_decide_nothing(world: MonitoredModel) -> None:
    one_day = Days(start=WINDOW.start, end=WINDOW.start + timedelta(days=1))
    _log(world, _predict(world, one_day, _blind))
    result = _run(world)
    assert (result.outcome, result.degraded, result.current) == ("too few labels", False, {})
    assert result.rows > 0
    assert result.counts["positive"] < 20
    assert "where 20 of each class are needed" in result.lacks


def test_twice_is_the_same_and_logged_once(world: MonitoredModel, good: Good) -> None:
    _log(world, good.rows)
    once = _run(world)
    assert _run(world) == once
    client = connect(world.settings.tracking_uri)
    points = client.get_metric_history(world.champion.run_id, "live/average_precision")
    now = (DRIFTED.toordinal(), pytest.approx(once.current["average_precision"]))
    same = [p for p in points if (p.step, p.value) == now]
    assert len(same) == 1


def test_nothing_to_measure(world: MonitoredModel, good: Good) -> None:
    def outcome(as_of: date | None, version: int | None) -> str:
        return performance.run(_inputs(world, as_of, version), world.settings).outcome

    assert outcome(DRIFTED, None) == "no champion"
    assert outcome(None, 1) == "no predictions"
    _log(world, good.rows)
    assert outcome(DRIFTED + timedelta(days=90), 1) == "no predictions"
    _log(world, good.rows.assign(model_version=2))
    assert outcome(DRIFTED, 1) == "no predictions"


def test_a_version_that_predicted_but_is_not_registered_is_an_input_error(world: MonitoredModel, good: Good) -> None:
    _log(world, good.rows.assign(model_version=99))
    with pytest.raises(InputError, match="99"):
        _run(world, version=99)


def test_events_that_the_version_was_trained_on_are_left_out(world: MonitoredModel) -> None:
    """They can only be there because a person had an old partition scored in batch."""
    trained = world.dataset.train.days
    as_of = trained.end + timedelta(days=load_model_spec(MODEL).label_spec.delay_days + 3)
    window = Days.ending(trained.end + timedelta(days=3), 7)
    _log(world, _predict(world, window, _good))
    result = _run(world, as_of)
    assert result.window == window
    _log(world, _predict(world, Days(start=trained.end, end=window.end), _good))
    alone = _run(world, as_of)
    assert 0 < result.rows == alone.rows
    assert (result.outcome, result.counts) == (alone.outcome, alone.counts)
    _log(world, _predict(world, Days.ending(trained.end, 4), _good))
    nothing = _run(world, as_of)
    assert (nothing.outcome, nothing.rows) == ("too few labels", 0)
