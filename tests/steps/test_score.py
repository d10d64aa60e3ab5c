"""Scoring in batch: which events, once each, whatever is killed, delivered again or changed meanwhile."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from testing.step_process import killed_after
from tests.cases import others_long
from tests.steps.batch_world import BatchWorld, ids
from tests.steps.ingest_helpers import GENERATOR, MODEL, day
from training.adapters.lake import EVENTS, PREDICTIONS, Appending
from training.adapters.prediction_table import PartitionPredictions
from training.contract.errors import DataContractError, InputError, TransientError
from training.contract.messages import ScoreInputs
from training.domain.predictions import event_type, prediction_schema
from training.steps import score


@pytest.fixture
def world(tmp_path: Path, mlflow_database: Path) -> BatchWorld:
    return BatchWorld(tmp_path, mlflow_database)


@pytest.fixture
def in_batches(tmp_path: Path, mlflow_database: Path) -> BatchWorld:
    """Where a partition takes several commits."""
    return BatchWorld(tmp_path, mlflow_database, batch_rows=70)


def test_a_new_partition_is_scored_once_by_the_champion(in_batches: BatchWorld) -> None:
    in_batches.land(0, 1)
    version = in_batches.promote()
    first = in_batches.score(run="run1")
    assert (first.outcome, first.partitions, first.rows) == ("scored", [str(day(0)), str(day(1))], len(ids(0, 1)))
    assert in_batches.answered() == ids(0, 1)
    again = in_batches.score(run="run2")
    assert (again.outcome, again.rows) == ("nothing new", 0)
    in_batches.land(2)
    assert in_batches.score(run="run3").partitions == [str(day(2))]
    assert in_batches.answered() == ids(0, 1, 2)
    rows = in_batches.predictions().to_pandas()
    assert set(rows["model_version"]) == {version}
    assert set(rows["role"]) == {"champion"}
    assert set(rows["replica"]) == {"batch:run1", "batch:run3"}
    assert rows["prediction_id"].tolist() == [f"card_fraud:1:{each['transaction_id']}" for each in rows["event"]]
    assert [each["event_time"].date() for each in rows["event"]] == rows["day"].tolist()


def test_without_events_or_a_champion_nothing_is_scored(world: BatchWorld) -> None:
    assert world.score().outcome == "no data"
    world.land(0)
    result = world.score()
    assert (result.outcome, result.partitions, result.rows) == ("no champion", [], 0)
    assert world.lake.version(PREDICTIONS) is None
    world.promote()
    assert world.score().partitions == [str(day(0))]


def test_late_events_of_a_partition_are_scored_and_the_others_not_again(in_batches: BatchWorld) -> None:
    rows = GENERATOR.events(day(0))
    in_batches.promote()
    in_batches.land(name=str(day(0)), rows=rows.slice(0, rows.num_rows - 40))
    in_batches.score()
    in_batches.land(1)
    in_batches.land(name=str(day(0)), rows=rows)
    result = in_batches.score()
    assert result.partitions == [str(day(0)), str(day(1))]
    assert (result.rows, result.answered_before) == (40 + len(ids(1)), rows.num_rows - 40)
    assert in_batches.answered() == ids(0, 1)


def test_a_new_champion_scores_what_is_new_and_the_rest_only_when_it_is_named(world: BatchWorld) -> None:
    world.land(0)
    first = world.promote()
    world.score()
    second = world.promote(bias=1.0)
    assert world.score().outcome == "nothing new"
    world.land(1)
    world.score()
    assert (world.answered(first), world.answered(second)) == (ids(0), ids(1))
    for _ in range(2):
        named = world.score(str(day(0)))
        assert named.partitions == [str(day(0))]
    assert (world.answered(first), world.answered(second)) == (ids(0), ids(0, 1))
    with pytest.raises(InputError, match="no events of a partition '2027-01-01'"):
        world.score("2027-01-01")


def test_old_events_are_scored_only_when_their_partition_is_named(tmp_path: Path, mlflow_database: Path) -> None:
    world = BatchWorld(tmp_path, mlflow_database, maximum_age_days=2)
    world.promote()
    world.land(0, 1, 2, 3)
    assert world.score().partitions == [str(day(2)), str(day(3))]
    assert world.score(str(day(0))).rows == len(ids(0))
    assert world.answered() == ids(0, 2, 3)


def test_events_whose_features_are_not_computed_yet_wait(world: BatchWorld) -> None:
    world.promote()
    world.land(0)
    rows = GENERATOR.events(day(1)).append_column(
        "partition", pa.repeat(str(day(1)), GENERATOR.events(day(1)).num_rows)
    )
    # The data run of the next partition is between its steps ingest and features.
    world.lake.replace(EVENTS, rows, f"partition = '{day(1)}'", ["partition"])
    assert world.score().partitions == [str(day(0))]
    assert world.answered() == ids(0)


def test_days_without_feature_rows_are_refused_before_anything_is_written(world: BatchWorld) -> None:
    world.promote()
    world.land(0, 1)
    table = world.lake.scan("customer_features").to_table()
    world.lake.replace("customer_features", table.slice(0, 0), f"day = '{day(1)}'", ["day"])
    with pytest.raises(DataContractError, match=rf"has no rows for 1 of the days to score, {day(1)} first"):
        world.score()
    assert world.lake.version(PREDICTIONS) is None


# --- kills ---


@pytest.mark.ci
def test_sigkill_at_any_moment_and_a_rerun_leave_every_prediction_once(in_batches: BatchWorld) -> None:
    """Real processes, killed at random times while they score; the run that goes on tells what it wrote in all."""
    chance = random.Random(7)
    in_batches.promote()
    in_batches.land(0, 1)

    def score_in_a_process(run_id: str, kill_after: float | None) -> float:
        return killed_after(score.run, (ScoreInputs(model=MODEL, run=run_id), in_batches.settings), kill_after)

    whole = score_in_a_process("first", None)
    for number in range(2, 6):
        in_batches.land(number)
        for _ in range(2):
            score_in_a_process(f"run{number}", kill_after=chance.uniform(0.3, 1.0) * whole)
        result = in_batches.score(run=f"run{number}")
        assert (result.outcome, result.partitions) == ("scored", [str(day(number))])
        assert result.rows == len(ids(number))
        assert in_batches.answered() == ids(*range(number + 1))


@pytest.mark.parametrize("survive", others_long([1, 0, 2]))
def test_killed_after_a_commit_the_next_try_goes_on_and_tells_of_both(
    in_batches: BatchWorld, monkeypatch: pytest.MonkeyPatch, survive: int
) -> None:
    in_batches.promote()
    in_batches.land(0)
    commit, left = Appending.commit, iter(range(survive))

    def killed(self: Appending, *args: Any) -> int:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return commit(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Appending, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            in_batches.score(run="run")
    in_batches.promote(bias=1.0)
    for _ in range(2):
        result = in_batches.score(run="run")
        assert (result.outcome, result.partitions, result.rows) == ("scored", [str(day(0))], len(ids(0)))
        assert result.champion_version == 1
    assert in_batches.answered(version=1) == ids(0)
    assert in_batches.score(run="later").outcome == "nothing new"


@pytest.mark.long
def test_of_two_processes_that_score_at_once_one_asks_to_be_run_again(world: BatchWorld) -> None:
    world.promote()
    world.land(0)
    schema = prediction_schema(event_type(world.spec))
    other = PartitionPredictions(world.lake, str(day(0)), schema)
    world.score()
    with pytest.raises(TransientError, match="Another writer changed"):
        other.commit([], 1)
    assert world.answered() == ids(0)
