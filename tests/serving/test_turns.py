"""Requests of one turn of the event loop are answered together, and the trouble of one is its own."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving.answering import Answering
from serving.batch import Batch, LookedUp
from serving.loaded_model import FEW_ROWS, LoadedModel, MeasuredModel
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.schema import Asked, BadRequest
from serving.signals import RolloutSignals
from serving.traffic import Route, Traffic
from serving.turns import Outcome, Turns
from testing.serving_stack import NAN_FROM, PAYMENT, artifact
from training.adapters.features import Features
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.model_spec import ModelSpec
from training.contract.signals import Signals
from training.settings import Settings

Predict = Callable[[list[Asked]], list[Outcome]]
NAMES = ["payment_amount", "weekend"]


def asked(number: int, rows: int = 1, **wishes: Any) -> Asked:
    return Asked([{"number": number}] * rows, time.perf_counter(), **wishes)


def answered(predict: Predict, *turns: list[tuple[str, Asked]]) -> list[Outcome | None]:
    """What each request is told, those of a turn asked at once, each with its way."""

    async def go() -> list[Outcome | None]:
        async def predicting(group: list[Asked]) -> list[Outcome]:
            return predict(group)

        made = Turns(predicting)
        told: list[Outcome | None] = [None] * sum(len(turn) for turn in turns)
        place = 0
        for turn in turns:
            for way, each in turn:
                made.ask(way, each, lambda outcome, place=place: told.__setitem__(place, outcome))  # type: ignore[misc]
                place += 1
            await asyncio.sleep(0.02)
        return told

    return asyncio.run(go())


def echo(group: list[Asked]) -> list[Outcome]:
    return [[{"number": each.rows[0]["number"], "group": len(group)}] for each in group]


def same(*numbers: int) -> list[tuple[str, Asked]]:
    return [("way", asked(number)) for number in numbers]


def test_what_comes_in_a_turn_is_answered_together_and_each_gets_its_own() -> None:
    told = answered(echo, same(*range(5)), same(7))
    assert told == [[{"number": i, "group": 5}] for i in range(5)] + [[{"number": 7, "group": 1}]]


def test_a_crowd_is_answered_in_groups() -> None:
    told = answered(echo, same(*range(FEW_ROWS + 1)))
    assert [each[0]["group"] for each in told if isinstance(each, list)] == [FEW_ROWS] * FEW_ROWS + [1]


def test_what_goes_another_way_is_no_company() -> None:
    told = answered(echo, [("one", asked(1)), ("two", asked(2)), ("one", asked(3))])
    assert [each[0]["group"] for each in told if isinstance(each, list)] == [2, 1, 2]


def test_the_trouble_of_one_is_its_own() -> None:
    def predict(group: list[Asked]) -> list[Outcome]:
        if any(each.rows[0]["number"] == 2 for each in group):
            raise ValueError("nobody thought of 2")
        return echo(group)

    told = answered(predict, same(1, 2, 3))
    assert isinstance(told[1], BadRequest)
    assert told[1].status == 500
    assert [told[0], told[2]] == [[{"number": 1, "group": 1}], [{"number": 3, "group": 1}]]


def test_who_cannot_be_told_does_not_keep_the_others_from_it() -> None:
    async def go() -> list[Outcome]:
        async def predicting(group: list[Asked]) -> list[Outcome]:
            return echo(group)

        def gone(_: Outcome) -> None:
            raise RuntimeError("the connection is closed")

        made, told = Turns(predicting), list[Outcome]()
        made.ask("way", asked(1), gone)
        made.ask("way", asked(2), told.append)
        await asyncio.sleep(0.02)
        return told

    assert asyncio.run(go()) == [[{"number": 2, "group": 2}]]


@pytest.mark.parametrize(("wishes", "plain"), [({}, True), ({"pinned": "7"}, False), ({"explain": True}, False)])
def test_what_takes_longer_or_goes_elsewhere_is_not_plain(wishes: dict[str, Any], plain: bool) -> None:
    assert asked(1, **wishes).plain is plain
    assert not asked(1, rows=2, **wishes).plain


class Bench:
    """The answering of a champion, and of a challenger that gives no number for amounts from NAN_FROM on."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self.lake, metrics = Lake(str(folder / "lake"), spec.name), Metrics(CollectorRegistry())
        self.log = PredictionLog(folder / "spool", self.lake, spec, "r", metrics)
        self.log.start()
        self.signals = RolloutSignals(spec, "r")
        self.answering = Answering(spec.name, "r", 0.5, self.log, self.signals, metrics)
        self.answering.start()
        plan = Features(Settings(home=folder), spec).plan(NAMES)
        self.champion, self.challenger = (
            LoadedModel(version, f"d{version}", MeasuredModel.load(path), plan, {}, datetime.now(UTC))
            for version, path in (
                (1, artifact(folder / "good", NAMES, -1.0)),
                (2, artifact(folder / "bad", NAMES, -1.0, nan=True)),
            )
        )
        self.signals.begin(Traffic(self.champion, self.challenger, None, "canary", 50.0))

    def answer(self, route: Route, amounts: list[float], ages: list[float]) -> list[Any]:
        now = datetime(2026, 1, 5, 12, tzinfo=UTC)
        rows = [PAYMENT | {"event_time": now, "transaction_id": i, "amount": a} for i, a in enumerate(amounts)]
        received = [time.perf_counter() - age for age in ages]
        batch = Batch(rows, LookedUp(route.reads, route.reads.nothing(len(rows))), received)
        return asyncio.run(self.answering.answer(route, batch))

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


def test_who_sent_slowly_takes_no_time_from_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.champion.model.slow = True
    score = LoadedModel.score
    monkeypatch.setattr(LoadedModel, "score", lambda loaded, values: time.sleep(0.2) or score(loaded, values))
    found = bench.answer(Route(bench.champion, "champion"), [1.0, 2.0], [0.4, 0.0])
    assert [each["model_version"] for each in found] == [1, 1]


def test_a_version_that_hangs_fails_each_request_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.challenger.model.slow = True
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


@pytest.mark.parametrize(("away", "decision"), [(-1e-12, "flag"), (0.0, "flag"), (1e-4, "pass")])
def test_a_score_at_the_threshold_is_flagged(bench: Bench, away: float, decision: str) -> None:
    route = Route(bench.champion, "champion")
    [score] = [each["score"] for each in bench.answer(route, [1.0], [0.0])]
    metadata = bench.champion.model.metadata.model_copy(update={"threshold": score + away})
    model = MeasuredModel(metadata, bench.champion.model._scorer)
    [found] = bench.answer(Route(replace(bench.champion, model=model), "champion"), [1.0], [0.0])
    assert (found["score"], found["decision"]) == (score, decision)
