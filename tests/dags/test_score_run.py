"""Runs of the scoring DAG itself, with a real step on a small lake, and what the DAGs that follow it are told."""

from pathlib import Path
from typing import Any

import pytest
from airflow.models.asset import AssetEvent, AssetModel
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState as State

from tests.dags.real_steps import run_dag, use_settings
from tests.steps.batch_world import BatchWorld, ids
from tests.steps.ingest_helpers import MODEL, day

pytestmark = [pytest.mark.ci, pytest.mark.usefixtures("airflow_database")]


@pytest.fixture
def world(tmp_path: Path, mlflow_database: Path) -> BatchWorld:
    return BatchWorld(tmp_path, mlflow_database)


@pytest.fixture
def run(world: BatchWorld, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Runs the DAG: the instance of its task, and the events of its asset so far."""
    use_settings(world.settings, ("home", "tracking_uri", "models_dir", "feature_repo"), monkeypatch, request)

    def run(**parameters: Any) -> tuple[Any, list[dict[str, Any]]]:
        done = run_dag("score.py", f"{MODEL}_score", parameters)
        (ti,) = done.get_task_instances()
        with create_session() as session:
            events = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            found = events.filter(AssetModel.name == f"{MODEL}_predictions").order_by(AssetEvent.id).all()
            return ti, [event.extra for event in found]

    return run


def test_from_no_champion_to_predictions_that_others_are_told_of(world: BatchWorld, run: Any) -> None:
    world.land(0, 1)
    ti, events = run()
    assert ti.state == State.SUCCESS
    assert ti.xcom_pull(task_ids="score")["outcome"] == "no champion"
    assert events == []

    version = world.promote()
    ti, events = run()
    assert ti.xcom_pull(task_ids="score")["outcome"] == "scored"
    (event,) = events
    assert event == {
        "as_of": str(day(2)),
        "model_version": version,
        "partitions": [str(day(0)), str(day(1))],
        "window": {"start": str(day(0)), "end": str(day(2))},
        "rows": len(ids(0, 1)),
    }
    assert world.answered() == ids(0, 1)
    assert set(world.predictions()["replica"].to_pylist()) == {f"batch:{ti.run_id}"}

    ti, events = run()
    assert ti.xcom_pull(task_ids="score")["outcome"] == "nothing new"
    assert len(events) == 1

    world.promote(bias=1.0)
    ti, events = run(partition=str(day(1)))
    assert ti.state == State.SUCCESS
    assert events[-1]["partitions"] == [str(day(1))]
    assert world.answered() == sorted([*ids(0, 1), *ids(1)])

    ti, _ = run(partition="yesterday")
    assert ti.state == State.FAILED
