"""The parts of the demo's scenario that need no running stack. tests/e2e runs all of it."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from rich.console import Console

from local import timeline
from local.airflow_api import Airflow, Run
from local.place import Place, Ports
from local.plans import plan_names, plan_of
from local.plans.card_fraud import Plan
from local.progress import Progress
from local.scenario import Scenario, each_day
from local.stack import Stack
from local.traffic import Serving, as_json
from local.verbs import champions
from tests.cases import others_in_ci
from training.contract.base import Days
from training.contract.errors import StepError, TransientError
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.predictions import Prediction
from training.contract.replicas import LoadedVersion, ReplicaModels, ServedModels
from training.contract.source_spec import load_source_spec
from training.contract.tasks import MetricRule
from training.domain.windows import learnable_from

Answer = tuple[int, Any]

#: Of the service, for one payment.
ANSWER: Prediction = {
    "prediction_id": "p",
    "score": 0.75,
    "decision": "alert",
    "threshold": 0.5,
    "model": "m",
    "model_version": 1,
    "role": "champion",
    "feature_timestamp": None,
    "features_defaulted": True,
}


@contextmanager
def server(answers: dict[str, list[Answer]], key: str = "") -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Answers each path with its answers in turn, the last of them for good. Yields its URL and what it was asked.

    `key`: callers without it get 401.
    """
    asked: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            length = int(self.headers.get("Content-Length") or 0)
            asked.append((path, json.loads(self.rfile.read(length)) if length else None))
            left = answers.get(path, [(404, {})])
            status, body = left.pop(0) if len(left) > 1 else left[0]
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                status, body = 401, {}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", asked
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def dag_run(id_: str, state: str = "success") -> dict[str, Any]:
    return {
        "dag_run_id": id_,
        "state": state,
        "run_type": "asset_triggered",
        "start_date": "2026-01-05T00:00:00Z",
        "end_date": None,
        "conf": None,
    }


def test_the_client_logs_in_and_again_when_it_is_told_to() -> None:
    runs = "/api/v2/dags/m_train/dagRuns"
    answers: dict[str, list[Answer]] = {
        "/auth/token": [(201, {"access_token": "t"})],
        runs: [(401, {}), (200, {"dag_runs": [dag_run("second"), dag_run("first")]})],
    }
    with server(answers) as (url, asked), Airflow(url, "admin", "secret", "s", "m", patience=5) as airflow:
        assert [run.id for run in airflow.runs("train")] == ["first", "second"]
    assert ("/auth/token", {"username": "admin", "password": "secret"}) in asked


def test_the_client_bridges_a_server_that_stumbles() -> None:
    answers: dict[str, list[Answer]] = {"/api/v2/dags/m_data/dagRuns": [(503, {}), (200, {"dag_runs": []})]}
    with server(answers) as (url, _), Airflow(url, "admin", "secret", "s", "m", patience=10) as airflow:
        assert airflow.runs("data") == []


def test_the_client_gives_up_with_a_hint() -> None:
    nowhere = Airflow("http://127.0.0.1:9", "admin", "secret", "s", "m", patience=0)
    with nowhere as airflow, pytest.raises(TransientError) as raised:
        airflow.runs("data")
    assert "airflow-api" in raised.value.hint


def test_a_result_is_read_as_json_and_absent_when_the_step_did_not_run() -> None:
    run = Run("train", "r 1", "success", "manual", None, None, {})
    path = "/api/v2/dags/m_train/dagRuns/r%201/taskInstances/decide_retraining/xcomEntries/return_value"
    with (
        server({path: [(200, {"value": '{"granted": true}'})]}) as (url, _),
        Airflow(url, "a", "b", "s", "m") as airflow,
    ):
        assert airflow.result(run, "decide_retraining") == {"granted": True}
        assert airflow.result(run, "rollout") is None


def test_serving_is_asked_in_batches_with_times_as_text() -> None:
    events = Plan(customers=400).generator.events(date(2026, 1, 5))
    answers: dict[str, list[Answer]] = {"/models/m/predict_batch": [(200, {"predictions": [ANSWER]})]}
    with server(answers) as (url, asked):
        scored, decisions = Serving(url, "m").replay(events)
    sent = [payment for _, batch in asked for payment in batch]
    # The server answers one prediction per batch.
    assert scored == decisions["alert"] == decisions.total() == len(asked) > 1
    assert len(sent) == events.num_rows
    assert datetime.fromisoformat(sent[0]["event_time"]) == events["event_time"][0].as_py()


def test_serving_that_starts_again_is_waited_for_and_a_refusal_is_not() -> None:
    payment = as_json({"amount": 1.0})
    with server({"/models/m/predict": [(503, {}), (200, ANSWER)]}) as (url, _):
        assert Serving(url, "m", patience=10).predict(payment) == ANSWER
    with (
        server({"/models/m/predict": [(422, {"error": "amount: …"})]}) as (url, _),
        pytest.raises(StepError, match="amount"),
    ):
        Serving(url, "m", patience=10).predict(payment)


def test_serving_that_wants_a_key_gets_it() -> None:
    answers: dict[str, list[Answer]] = {"/models/m/predict": [(200, ANSWER)]}
    champion = LoadedVersion(version=1, digest="d", since=datetime(2026, 1, 5, tzinfo=UTC))
    models = ReplicaModels(model="m", replica="r", models={"champion": champion})
    answers["/models/m"] = [(200, models.model_dump(mode="json"))]
    with server(answers, "secret") as (url, _):
        serving = Serving(url, "m", api_key=SecretStr("secret"))
        assert (serving.predict({}), serving.champion()) == (ANSWER, 1)
        with pytest.raises(StepError, match="401"):
            Serving(url, "m").predict({})


def test_the_status_has_a_line_per_model(tmp_path: Path) -> None:
    champion = LoadedVersion(version=3, digest="d", since=datetime(2026, 1, 5, tzinfo=UTC))
    served = ServedModels(
        replica="r",
        service="default",
        models={
            "one": ReplicaModels(model="one", replica="r", models={"champion": champion}),
            "two": ReplicaModels(model="two", replica="r", models={}, problem="version 1 has a wrong digest"),
        },
        not_served={"three": "its spec is no YAML"},
    )
    with server({"/models": [(200, served.model_dump(mode="json"))]}) as (url, _):
        lines = champions(Stack(Place(tmp_path, tmp_path, Ports(serving=int(url.rpartition(":")[2])))))
    assert [" ".join(line.split()) for line in lines] == [
        "one version 3 serves since 2026-01-05 00:00:00 UTC",
        "two no champion: version 1 has a wrong digest",
        "three not served: its spec is no YAML",
    ]
    (line,) = champions(Stack(Place(tmp_path, tmp_path, Ports(serving=9))))
    assert "does not say" in line


def test_no_champion_without_an_answer() -> None:
    assert Serving("http://127.0.0.1:9", "m").champion() is None


@pytest.mark.parametrize("model", plan_names())
def test_a_plan_gives_the_changed_days_time_to_reach_the_training_window(model: str) -> None:
    plan, spec = plan_of(model), load_model_spec(model)
    assert (plan.model, plan.source) == (spec.name, spec.source.name)
    delay, after = spec.label_spec.delay_days, spec.training.after_change
    needed = delay + spec.training.holdout_days + delay
    if plan.days_to_serve is not None:
        assert after is not None
        assert learnable_from(plan.history.end, after, delay) <= plan.serves_by
    assert plan.changed_weeks * 7 > needed
    assert len(plan.history) >= needed + spec.training.window_days
    assert plan.week(1).start == plan.history.end
    assert plan.week(2).start == plan.week(1).end


def test_a_model_without_a_plan_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(StepError, match="no demo of the model 'flight_outcome'") as raised:
        plan_of("flight_outcome")
    assert "card_fraud, flight_delay" in raised.value.hint


@pytest.mark.parametrize("model", others_in_ci(plan_names()))
def test_a_plan_lands_the_events_that_it_sends_to_serving(model: str, tmp_path: Path) -> None:
    plan = plan_of(model)
    days = Days(start=plan.history.end, end=plan.history.end + timedelta(days=2))
    path = plan.land(tmp_path, "events", days)
    assert path.parent == tmp_path / plan.source / "events"
    sent = pa.concat_tables([plan.events(day) for day in each_day(days)])
    assert pq.read_table(path).equals(sent)
    reported = load_source_spec(plan.source).feeds["labels"].time_column
    labels = pq.read_table(plan.land(tmp_path, "labels", days))[reported].to_pylist()
    assert {time.date() for time in labels} == set(each_day(days))


def test_the_change_begins_with_the_first_drifted_week(spec: ModelSpec) -> None:
    plan = Plan(customers=300)
    before, after = (plan.generator.events(day)["amount"] for day in (date(2026, 3, 1), plan.history.end))
    assert plan.history.end == date(2026, 3, 2)
    assert sum(after.to_pylist()) / len(after) > 1.2 * sum(before.to_pylist()) / len(before)


def test_a_failed_run_ends_the_scenario_with_its_log(tmp_path: Path) -> None:
    data = "/api/v2/dags/card_payments_data/dagRuns"
    answers: dict[str, list[Answer]] = {
        data: [(200, {"dag_runs": [dag_run("labels_1", "failed")]})],
        f"{data}/labels_1/taskInstances": [
            (200, {"task_instances": [{"task_id": "ingest", "state": "failed", "map_index": -1, "try_number": 1}]})
        ],
        f"{data}/labels_1/taskInstances/ingest/logs/1": [(200, {"content": [{"event": "the disk is full"}]})],
    }
    out = Progress(Console(file=io.StringIO()))
    with server(answers) as (url, _), Airflow(url, "a", "b", "card_payments", "card_fraud", patience=5) as airflow:
        scenario = Scenario(Plan(customers=50, history_weeks=2), tmp_path, airflow, Serving(url, "m"), out)
        with pytest.raises(StepError, match="the disk is full") as raised:
            scenario.run()
    assert "labels_1 of card_payments_data" in raised.value.message
    assert "make demo" in raised.value.hint
    assert list((tmp_path / "card_payments" / "labels").glob("*.parquet"))


def test_what_is_landed_is_not_landed_again(tmp_path: Path) -> None:
    plan = Plan(customers=50, history_weeks=2)
    answers: dict[str, list[Answer]] = {
        "/api/v2/dags/card_payments_data/dagRuns": [(200, {"dag_runs": [dag_run("x", "failed")]})]
    }
    landed = []
    with server(answers) as (url, _), Airflow(url, "a", "b", "card_payments", "card_fraud", patience=5) as airflow:
        for _ in range(2):
            with pytest.raises(StepError):
                Scenario(plan, tmp_path, airflow, Serving(url, "m"), Progress(Console(file=io.StringIO()))).run()
            landed.append([path.stat().st_ino for path in tmp_path.rglob("*.parquet")])
    assert landed[0] == landed[1] != []


def test_without_a_terminal_progress_is_plain_lines() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, soft_wrap=True)) as progress:
        progress.say("Landed [events]")
        progress.now("waiting")
    assert out.getvalue() == "00:00  Landed [events]\n"


def test_each_day() -> None:
    days = list(each_day(Plan().week(1)))
    assert days[0] == date(2026, 3, 2)
    assert days[-1] == date(2026, 3, 8)


# --- the timeline ---


def entry(kind: str, minute: int, causes: list[dict[str, Any]] | None = None, **results: Any) -> timeline.Entry:
    started = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
    return timeline.Entry(
        Run(kind, f"{kind}-{minute}", "success", "asset", started, None, {}), results, causes or [], ""
    )


def trained(minute: int, trigger: str, version: int | None, new: float, old: float | None) -> timeline.Entry:
    verdict = {
        "promote": version is not None,
        "reasons": ["average_precision …"],
        "primary": "average_precision",
        "challenger": {"average_precision": new},
        "champion": None if old is None else {"average_precision": old},
        "difference": None if old is None else (0.1, 0.3),
        "confidence": 0.9,
    }
    return entry(
        "train",
        minute,
        [{"asset": "m_retrain", "extra": {}, "source": None}],
        decide_retraining={
            "trigger": trigger,
            "reason": f"{trigger} says so",
            "request_id": "r",
            "granted": True,
            "why": "Granted.",
        },
        evaluate={"verdict": verdict, "challenger": {"estimator": "mlp"}},
        rollout={"version": version, "previous_version": (version or 1) - 1, "seconds": 1.5},
    )


DRIFTED = entry(
    "monitor",
    2,
    drift={
        "outcome": "measured",
        "drifted": True,
        "drifted_share": 0.5,
        "as_of": "2026-03-09",
        "champion_version": 1,
        "window": {"start": "2026-03-02", "end": "2026-03-09"},
        "report_html": __file__,
    },
    performance={"outcome": "measured", "current": {"roc_auc": 0.6}, "reference": {"roc_auc": 0.8}},
    decide_retraining={"reason": "drift", "why": "Granted."},
)
UNREPORTED = replace(DRIFTED, results=DRIFTED.results | {"drift": DRIFTED.results["drift"] | {"report_html": "/gone"}})
UNMEASURED = replace(DRIFTED, results={k: v for k, v in DRIFTED.results.items() if k != "performance"})
STORY = [trained(1, "first", 1, 0.7, None), DRIFTED, trained(3, "drift", 2, 0.6, 0.4)]


RULES = load_model_spec("card_fraud").task.rules or {}


def missing(entries: list[timeline.Entry], champion: int | None) -> list[str]:
    return [check.expected for check in timeline.checks(entries, champion, RULES) if not check.held]


def test_the_whole_scenario() -> None:
    assert missing(STORY, 2) == []


@pytest.mark.parametrize(
    ("entries", "champion", "lacking"),
    [
        ([], None, "a first training made version 1"),
        ([STORY[0], STORY[2]], 2, "the monitor DAG found drift"),
        ([STORY[0], UNREPORTED, STORY[2]], 2, "its reports are there"),
        ([STORY[0], UNMEASURED, STORY[2]], 2, "logged predictions met their late labels"),
        (STORY[:2], 1, "a training that drift or performance asked for was rolled out"),
        (
            [*STORY[:2], trained(3, "person", 2, 0.6, 0.4)],
            2,
            "a training that drift or performance asked for was rolled out",
        ),
        ([*STORY[:2], replace(STORY[2], causes=[])], 2, "the retrain asset started it"),
        ([*STORY[:2], trained(3, "drift", 2, 0.4, 0.4)], 2, "it beats the version before on the same holdout"),
        (STORY, 1, "its version serves"),
        (STORY, None, "its version serves"),
    ],
)
def test_what_is_missing_is_named(entries: list[timeline.Entry], champion: int | None, lacking: str) -> None:
    assert lacking in missing(entries, champion)


def found(entries: list[timeline.Entry], expected: str) -> str:
    return next(check.found for check in timeline.checks(entries, 1, RULES) if check.expected == expected)


def test_a_demo_without_a_training_says_what_came_nearest_to_one() -> None:
    drift = DRIFTED.results["drift"] | {"drifted": False, "drifted_share": 0.29}
    why = "No reason to train: 29% of the features drifted, 30% would be a reason."
    quiet = replace(DRIFTED, results={"drift": drift, "decide_retraining": {"reason": "", "why": why}})
    calmer = replace(quiet, results={"drift": drift | {"drifted_share": 0.1}})
    text = found([STORY[0], calmer, quiet], "the monitor DAG found drift")
    assert text == "in 0 of 2 looks, at most 29% of the features (2026-03-02 up to 2026-03-09)"
    wanted = "a training that drift or performance asked for was rolled out"
    assert found([STORY[0], calmer, quiet], wanted) == f"there is none. The last look: {why}"
    kept = trained(3, "drift", None, 0.4, 0.4)
    assert found([STORY[0], quiet, kept], wanted) == "there is none. Run train-3: average_precision …"
    failed = replace(kept, run=replace(kept.run, state="failed"), results=kept.results | {"evaluate": {}})
    assert found([STORY[0], quiet, failed], wanted) == "there is none. Run train-3: failed"
    assert found([], wanted) == "there is none"


@pytest.mark.parametrize(("as_of", "soon"), [("2026-03-16", True), ("2026-03-19", True), ("2026-03-20", False)])
def test_a_better_version_must_serve_ten_days_after_the_first_labels_of_the_change(as_of: str, soon: bool) -> None:
    late = replace(STORY[2], results=STORY[2].results | {"dataset": {"as_of": as_of}})
    found = timeline.checks([*STORY[:2], late], 2, RULES, Plan().serves_by)
    assert [check.expected for check in found if not check.held] == (
        [] if soon else ["it knew only what was known by 2026-03-19"]
    )


def test_a_version_whose_lower_error_is_better_beats_the_one_before() -> None:
    rules = {"average_precision": MetricRule(higher_is_better=False, low=0, high=float("inf"))}
    beats = "it beats the version before on the same holdout"
    held = {check.expected: check.held for check in timeline.checks(STORY, 2, rules)}
    assert not held[beats]
    lower = [*STORY[:2], trained(3, "drift", 2, 0.4, 0.6)]
    assert {check.expected: check.held for check in timeline.checks(lower, 2, rules)}[beats]


def test_the_timeline_says_when_why_and_with_what_numbers() -> None:
    text = "\n".join(timeline.lines(STORY))
    assert "00:02:00  monitor" in text
    assert "50% of the features drifted against what version 1 was trained on" in text
    assert __file__ in text
    assert "because of drift (drift says so), by asset m_retrain" in text


def test_a_look_before_there_was_data_has_no_day() -> None:
    before = replace(DRIFTED, results={"drift": {"outcome": "no data", "snapshot": {"as_of": None}}})
    assert "00:02:00  monitor no data" in "\n".join(timeline.lines([before]))


def test_the_timeline_tells_the_reason_of_a_training_once() -> None:
    asked = {"decide_retraining": {"reason": "drift says so", "why": "Granted."}}
    story = [STORY[0], replace(DRIFTED, results=DRIFTED.results | asked), STORY[2]]
    text = "\n".join(timeline.lines(story))
    assert text.count("drift says so") == 1
    assert "because of drift (as requested at 00:02:00), by asset m_retrain" in text
    assert "version 2 serves" in text
    assert "average_precision      0.400 → 0.600" in "\n".join(timeline.quality(STORY[2]))
