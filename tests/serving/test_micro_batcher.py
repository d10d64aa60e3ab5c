"""Requests of one turn of the event loop share a batch, and the failure of one is not that of the others."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

import serving.answering
from serving.answering import Answering
from serving.batch import Batch, LookedUp
from serving.loaded_model import FEW_ROWS, LoadedModel, MeasuredModel
from serving.metrics import Metrics
from serving.micro_batcher import MicroBatcher, Outcome
from serving.prediction_log import PredictionLog
from serving.recorder import LINE_ROWS, RECORD_SECONDS, RecordTimer
from serving.request import PredictionRequest
from serving.schema import BadRequest
from serving.segments import EventLayout
from serving.signals import RolloutSignals
from serving.traffic import Route, Traffic
from testing.serving_artifacts import EVENT, NAN_FROM, artifact
from training.adapters.features import Features, MergedViews, ViewRows
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.model_spec import ModelSpec
from training.contract.signals import Signals
from training.settings import Settings

NAMES = ["payment_amount", "weekend"]


def request(number: int, rows: int = 1, **wishes: Any) -> PredictionRequest:
    return PredictionRequest([{"number": number}] * rows, time.perf_counter(), **wishes)


def outcomes(
    predict: Callable[[list[PredictionRequest]], list[Outcome]], *turns: list[tuple[str, PredictionRequest]]
) -> list[Outcome]:
    """Of each request. Those of a turn, each with its batch key, are made in one turn of the event loop."""

    async def go() -> list[Outcome]:
        async def predicting(batch: list[PredictionRequest]) -> list[Outcome]:
            return predict(batch)

        batcher = MicroBatcher(predicting)
        found: list[Outcome] = []
        for turn in turns:
            found += await asyncio.gather(*(batcher.outcome(each, batch_key) for batch_key, each in turn))
        return found

    return asyncio.run(go())


def echo(batch: list[PredictionRequest]) -> list[Outcome]:
    return [[{"number": each.rows[0]["number"], "batch": len(batch)}] for each in batch]


def same(*numbers: int) -> list[tuple[str, PredictionRequest]]:
    return [("key", request(number)) for number in numbers]


#: After a turn of several requests, those of the next turn share batches from the first on.
CROWD = same(90, 91)


def test_requests_of_a_turn_share_a_batch_and_each_gets_its_own() -> None:
    found = outcomes(echo, CROWD, same(*range(5)), same(7))[2:]
    assert found == [[{"number": i, "batch": 5}] for i in range(5)] + [[{"number": 7, "batch": 1}]]


def test_many_requests_are_answered_in_several_batches() -> None:
    found = outcomes(echo, CROWD, same(*range(FEW_ROWS + 1)))[2:]
    assert [each[0]["batch"] for each in found if isinstance(each, list)] == [FEW_ROWS] * FEW_ROWS + [1]


def test_other_batch_keys_are_other_batches() -> None:
    found = outcomes(echo, CROWD, [("one", request(1)), ("two", request(2)), ("one", request(3))])[2:]
    assert [each[0]["batch"] for each in found if isinstance(each, list)] == [2, 1, 2]


def test_what_the_store_has_for_a_request_stays_with_its_row_in_a_batch() -> None:
    merged = MergedViews(())
    parts = [LookedUp(merged, [ViewRows([[i, i + 1]], [float(i)]), ViewRows([[-i]], [i + 0.5])]) for i in range(1, 4)]
    joined = LookedUp.joined(parts)
    assert joined.merged_views is merged
    assert joined.found == [
        ViewRows([[1, 2], [2, 3], [3, 4]], [1.0, 2.0, 3.0]),
        ViewRows([[-1], [-2], [-3]], [1.5, 2.5, 3.5]),
    ]
    assert joined.of([2]) == parts[2]


def test_while_one_arrives_per_turn_it_is_answered_in_that_turn() -> None:
    async def go() -> list[bool]:
        async def predicting(batch: list[PredictionRequest]) -> list[Outcome]:
            return echo(batch)

        batcher, turns = MicroBatcher(predicting), []
        for number in range(3):
            later = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(later.set_result, None)
            await batcher.outcome(request(number), "key")
            turns.append(later.done())
            await later
        return turns

    assert asyncio.run(go()) == [False] * 3


def test_who_arrives_before_a_batch_begins_joins_it() -> None:
    async def go() -> list[Outcome]:
        async def predicting(batch: list[PredictionRequest]) -> list[Outcome]:
            return echo(batch)

        loop, batcher = asyncio.get_running_loop(), MicroBatcher(predicting)
        await asyncio.gather(*(batcher.outcome(each, key) for key, each in CROWD))
        begun = [loop.create_task(batcher.outcome(request(number), "key")) for number in (1, 2)]
        await asyncio.sleep(0)
        begun.append(loop.create_task(batcher.outcome(request(3), "key")))
        return await asyncio.gather(*begun)

    assert asyncio.run(go()) == [[{"number": number, "batch": 3}] for number in (1, 2, 3)]


def test_the_failure_of_one_is_not_that_of_its_batch() -> None:
    def predict(batch: list[PredictionRequest]) -> list[Outcome]:
        if any(each.rows[0]["number"] == 2 for each in batch):
            raise ValueError("nobody thought of 2")
        return echo(batch)

    found = outcomes(predict, CROWD, same(1, 2, 3))[2:]
    assert isinstance(found[1], BadRequest)
    assert found[1].status == 500
    assert [found[0], found[2]] == [[{"number": 1, "batch": 1}], [{"number": 3, "batch": 1}]]


def test_a_batch_with_too_few_outcomes_leaves_nobody_waiting() -> None:
    found = outcomes(lambda batch: echo(batch)[:1], CROWD, same(1, 2, 3))[2:]
    assert found == [[{"number": number, "batch": 1}] for number in (1, 2, 3)]


def test_a_cancelled_request_does_not_keep_the_others_of_its_batch_from_their_answers() -> None:
    async def go() -> Outcome:
        async def predicting(batch: list[PredictionRequest]) -> list[Outcome]:
            await asyncio.sleep(0.02)
            return echo(batch)

        batcher = MicroBatcher(predicting)
        await asyncio.gather(*(batcher.outcome(each, key) for key, each in CROWD))
        gone = asyncio.create_task(batcher.outcome(request(1), "key"))
        stays = asyncio.create_task(batcher.outcome(request(2), "key"))
        await asyncio.sleep(0.01)
        gone.cancel()
        return await stays

    assert asyncio.run(go()) == [{"number": 2, "batch": 2}]


@pytest.mark.parametrize(("wishes", "may"), [({}, True), ({"pinned": "7"}, False), ({"explain": True}, False)])
def test_what_takes_longer_or_is_pinned_does_not_share_a_batch(wishes: dict[str, Any], may: bool) -> None:
    assert request(1, **wishes).may_share_a_batch is may
    assert not request(1, rows=2, **wishes).may_share_a_batch


class Bench:
    """The answering of a champion, and of a challenger that gives no number for amounts from NAN_FROM on."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self.lake, metrics = (
            Lake(str(folder / "lake"), spec.source.name, spec.name),
            Metrics(CollectorRegistry()).of(spec.name),
        )
        self.log = PredictionLog(folder / "spool", self.lake, EventLayout.of(spec), "r", metrics)
        self.log.start()
        self.signals = RolloutSignals(spec, "r")
        self.answering = Answering(spec.name, "r", 0.5, self.log, self.signals, metrics, RecordTimer())
        plan = Features(Settings(home=folder), spec).plan(NAMES)
        self.champion, self.challenger = (
            LoadedModel(version, f"d{version}", MeasuredModel.load(path), plan, {}, datetime.now(UTC))
            for version, path in (
                (1, artifact(folder / "good", NAMES, -1.0)),
                (2, artifact(folder / "bad", NAMES, -1.0, nan=True)),
            )
        )
        self.signals.begin(Traffic(self.champion, self.challenger, None, "canary", 50.0))

    def batch(self, route: Route, amounts: list[float], ages: list[float]) -> Batch:
        now = datetime(2026, 1, 5, 12, tzinfo=UTC)
        rows = [EVENT | {"event_time": now, "transaction_id": i, "amount": a} for i, a in enumerate(amounts)]
        received = [time.perf_counter() - age for age in ages]
        return Batch(rows, LookedUp(route.merged_views, route.merged_views.missing(len(rows))), received)

    def answer(self, route: Route, amounts: list[float], ages: list[float]) -> list[Any]:
        async def go() -> list[Any]:
            answers = await self.answering.answer(route, self.batch(route, amounts, ages))
            await asyncio.sleep(3 * RECORD_SECONDS)
            return answers

        return asyncio.run(go())

    def seen(self) -> Signals:
        return Signals.model_validate(self.signals.snapshot())


@pytest.fixture
def bench(tmp_path: Path, spec: ModelSpec) -> Iterator[Bench]:
    made = Bench(tmp_path, spec)
    time.sleep(0.02)  # signals leave out what came before they began
    yield made
    made.answering.close()
    made.log.close()


def test_a_row_that_the_challenger_cannot_score_is_the_champions_and_the_others_stay(bench: Bench) -> None:
    route = Route(bench.challenger, "challenger", bench.champion)
    found = bench.answer(route, [1.0, NAN_FROM + 1, 2.0], [0.0] * 3)
    assert [(each["model_version"], each["role"]) for each in found] == [
        (2, "challenger"),
        (1, "champion"),
        (2, "challenger"),
    ]
    alone = [bench.answer(route, [amount], [0.0])[0]["score"] for amount in (1.0, NAN_FROM + 1, 2.0)]
    assert [each["score"] for each in found] == pytest.approx(alone, abs=1e-6)
    two, one = bench.seen().of(2), bench.seen().of(1)
    assert (two.asked, two.errors, two.scored, two.nans, one.answered) == (6, 2, 6, 2, 2)


def test_a_row_that_nobody_can_score_is_refused_alone(bench: Bench) -> None:
    found = bench.answer(Route(bench.challenger, "champion"), [1.0, NAN_FROM + 1], [0.0] * 2)
    assert found[0]["model_version"] == 2
    assert (found[1].status, "not a number" in found[1].problem.error) == (503, True)


def test_a_number_beyond_the_range_of_a_feature_is_its_callers_mistake(bench: Bench) -> None:
    with np.errstate(over="ignore"):
        found = bench.answer(Route(bench.challenger, "challenger", bench.champion), [1.0, -1e39], [0.0] * 2)
    assert found[0]["model_version"] == 2
    assert (found[1].status, list(found[1].problem.fields)) == (422, ["amount"])
    assert bench.seen().of(2).errors == 0


def test_the_rows_of_one_request_are_answered_whole_or_not_at_all(bench: Bench) -> None:
    found = bench.answer(Route(bench.challenger, "champion"), [1.0, NAN_FROM + 1], [0.0])
    assert [each.status for each in found] == [503, 503]


def test_who_has_waited_too_long_is_refused_and_the_others_are_not(bench: Bench) -> None:
    found = bench.answer(Route(bench.champion, "champion"), [1.0, 2.0], [5.0, 0.0])
    assert (found[0].status, found[0].problem.error) == (503, "The request could not be answered in time")
    assert found[1]["model_version"] == 1


def test_each_is_logged_with_its_own_features_and_time(bench: Bench) -> None:
    bench.answer(Route(bench.champion, "champion"), [1.0, 2.0], [0.3, 0.0])
    bench.answer(Route(bench.champion, "champion"), [3.0, 4.0], [0.2])
    bench.log.close()
    rows = bench.lake.scan(PREDICTIONS).to_table().to_pylist()
    rows.sort(key=lambda row: row["event"]["amount"])
    assert [row["features"] for row in rows] == [
        [("payment_amount", float(amount)), ("weekend", 0.0)] for amount in (1, 2, 3, 4)
    ]
    assert [row["latency_seconds"] for row in rows] == pytest.approx([0.3, 0.0, 0.2, 0.2], abs=0.09)


@pytest.mark.parametrize(("amount", "logged"), [(NAN_FROM + 1, 0), (2.0, 2)])
def test_of_a_request_that_is_refused_no_route_logs_rows(bench: Bench, amount: float, logged: int) -> None:
    good, bad = Route(bench.champion, "champion"), Route(bench.challenger, "challenger")
    parts = [(good, bench.batch(good, [1.0], [0.0])), (bad, bench.batch(bad, [amount], [0.0]))]
    [[first], [second]] = asyncio.run(bench.answering.answer_together(parts))
    assert isinstance(second, BadRequest) is (logged == 0)
    assert first["model_version"] == 1
    bench.answering.close()
    bench.log.close()
    exists = bench.lake.version(PREDICTIONS) is not None
    assert (bench.lake.scan(PREDICTIONS).to_table().num_rows if exists else 0) == logged
    assert bench.seen().of(1).answered == logged // 2


def test_answers_do_not_wait_for_the_log_and_the_end_of_the_service_loses_none(bench: Bench) -> None:
    route = Route(bench.champion, "champion")

    async def go() -> list[int]:
        counted = []
        for turns in (0, 1, 2):
            await bench.answering.answer(route, bench.batch(route, [1.0], [0.0]))
            for _ in range(turns):
                await asyncio.sleep(0)
            counted.append(bench.seen().of(1).answered)
        await bench.answering.answer(route, bench.batch(route, [1.0], [0.0]))
        bench.answering.close()
        return counted

    assert asyncio.run(go())[0] == 0
    assert bench.seen().of(1).answered == 4
    bench.log.close()
    assert bench.lake.scan(PREDICTIONS).to_table().num_rows == 4


def test_a_prediction_that_cannot_be_logged_costs_no_other(bench: Bench) -> None:
    route = Route(bench.champion, "champion")

    async def go() -> None:
        broken = bench.batch(route, [1.0], [0.0])
        broken.rows[0]["transaction_id"] = object()
        await bench.answering.answer(route, broken)
        await bench.answering.answer(route, bench.batch(route, [2.0], [0.0]))

    asyncio.run(go())
    bench.answering.close()
    bench.log.close()
    assert [row["event"]["amount"] for row in bench.lake.scan(PREDICTIONS).to_table().to_pylist()] == [2.0]


def test_answers_that_are_recorded_together_fill_lines_up_to_their_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose rows do not fit begins the next line. One with more rows than a line may have is a line."""
    lines, append = [], bench.log.append
    monkeypatch.setattr(bench.log, "append", lambda rows: lines.append(len(rows["prediction_id"])) or append(rows))
    monkeypatch.setattr("serving.recorder.RECORD_SECONDS", 60.0)  # All at once, at the end.
    route, requests = Route(bench.champion, "champion"), (LINE_ROWS - 2, 2, 1, LINE_ROWS + 1, LINE_ROWS)

    async def go() -> None:
        for rows in requests:
            await bench.answering.answer(route, bench.batch(route, [1.0] * rows, [0.0]))

    asyncio.run(go())
    bench.answering.close()
    assert lines == [LINE_ROWS, 1, LINE_ROWS + 1, LINE_ROWS]
    bench.log.close()
    assert bench.lake.scan(PREDICTIONS).to_table().num_rows == sum(requests)


def test_the_scores_of_an_explanation_are_not_counted(bench: Bench) -> None:
    route = Route(bench.champion, "champion")
    batch = replace(bench.batch(route, [1.0], [0.0]), explain=True)
    [found] = asyncio.run(bench.answering.answer(route, batch))
    assert found["explanation"]["contributions"].keys() == set(NAMES)
    assert bench.champion.model.work.scored == 1


def test_an_explanation_has_the_deadline_of_its_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.answering, "explain", lambda *_: time.sleep(1.5))
    route = Route(bench.champion, "champion")
    batch = replace(bench.batch(route, [1.0], [0.0]), explain=True)
    [found] = asyncio.run(bench.answering.answer(route, batch))
    assert (found.status, found.problem.error) == (503, "The explanation could not be made in time")


def test_who_sent_slowly_takes_no_time_from_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.champion.model.speed.slow = True
    score = LoadedModel.score
    monkeypatch.setattr(LoadedModel, "score", lambda loaded, values: time.sleep(0.2) or score(loaded, values))
    found = bench.answer(Route(bench.champion, "champion"), [1.0, 2.0], [0.4, 0.0])
    assert [each["model_version"] for each in found] == [1, 1]


def test_a_version_that_hangs_fails_each_request_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.challenger.model.speed.slow = True
    monkeypatch.setattr(LoadedModel, "score", lambda *_: time.sleep(1.0))
    found = bench.answer(Route(bench.challenger, "challenger"), [1.0, 2.0, 3.0], [0.0] * 3)
    assert [each.status for each in found] == [503] * 3
    two = bench.seen().of(2)
    assert (two.asked, two.errors) == (3, 3)


def test_a_shadow_counts_rows_and_fails_those_that_it_cannot_score(bench: Bench) -> None:
    bench.signals.begin(Traffic(bench.champion, bench.challenger, None, "shadow", 0.0))
    time.sleep(0.02)
    bench.answer(Route(bench.champion, "champion", bench.challenger), [1.0, NAN_FROM + 1, 2.0, 3.0], [0.0] * 4)
    bench.answer(Route(bench.champion, "champion", bench.challenger), [1.0, 2.0], [0.0])
    bench.answering.close()
    seen = bench.seen()
    two = seen.of(2)
    assert (two.asked, two.errors, two.rows, two.nans, seen.pair.rows) == (6, 1, 5, 1, 5)
    bench.log.close()
    roles = bench.lake.scan(PREDICTIONS).to_table()["role"].to_pylist()
    assert (roles.count("shadow"), roles.count("champion")) == (5, 6)


@pytest.mark.parametrize(("away", "decision"), [(-1e-12, "alert"), (0.0, "alert"), (1e-4, "pass")])
def test_a_score_at_the_threshold_alerts(bench: Bench, away: float, decision: str) -> None:
    route = Route(bench.champion, "champion")
    [score] = [each["score"] for each in bench.answer(route, [1.0], [0.0])]
    metadata = bench.champion.model.metadata.model_copy(update={"task": {"kind": "binary", "threshold": score + away}})
    model = MeasuredModel(metadata, bench.champion.model._scorer)
    [found] = bench.answer(Route(replace(bench.champion, model=model), "champion"), [1.0], [0.0])
    assert (found["score"], found["decision"]) == (score, decision)
