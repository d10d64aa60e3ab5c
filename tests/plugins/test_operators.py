"""Steps as tasks, run by Airflow in this process. The steps are the real ones, on an empty lake or with bad inputs."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.asset import AssetEvent
from airflow.sdk import DAG, Asset, Param, task
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState as State
from perennial_airflow import operators
from perennial_airflow.refs import FromRun, result
from perennial_airflow.requests import WHEN_THE_RUN_FAILED, training_request
from sqlalchemy import select

from tests.airflow_fixtures import StepServer
from tests.cases import others_long

pytestmark = [pytest.mark.usefixtures("airflow_database", "step_settings")]

MODEL = {"model": "card_fraud"}
#: The launcher of a process of its own for each step, and the quick one where there is one.
ALONE = "subprocess"
FORKED = "forkserver" if sys.platform == "linux" else ALONE
#: Granted nothing: there is no data yet.
ASK = {**MODEL, "trigger": "new_data", "run": "a-run"}


@pytest.fixture(autouse=True)
def launcher(request: pytest.FixtureRequest, step_settings: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Steps are forked by the step server, which is quick, unless a test asks for a process of its own for each.

    A test looks `operators.StepOperator` up. Imported with this file, it would be that of the default launcher.
    """
    chosen = getattr(request, "param", FORKED)
    monkeypatch.setenv("CT_LAUNCHER", chosen)
    if chosen == "forkserver":  # Not on macOS.
        server: StepServer = request.getfixturevalue("step_server")
        monkeypatch.setenv("CT_FORKSERVER_SOCKET", str(server.socket))
    return chosen


def dag(name: str, **kwargs: Any) -> DAG:
    return DAG(name, schedule=None, default_args={"retries": 1, "retry_delay": timedelta(0)}, **kwargs)


def run(subject: DAG, **kwargs: Any) -> dict[str, Any]:
    """Task (and map index) → its instance, after one run."""
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(None)
    bag.bag_dag(subject)
    sync_bag_to_db(bag, "dags-folder", None)
    instances = subject.test(**kwargs).get_task_instances()
    return {ti.task_id if ti.map_index < 0 else f"{ti.task_id}-{ti.map_index}": ti for ti in instances}


def result_of(ti: Any) -> Any:
    return ti.xcom_pull(task_ids=ti.task_id)


@pytest.mark.parametrize(
    "launcher", [FORKED, *([] if FORKED == ALONE else [pytest.param(ALONE, marks=pytest.mark.ci)])], indirect=True
)
def test_the_result_is_handed_on_and_its_fields_are_inputs_with_their_types(tmp_path: Path) -> None:
    @task
    def look(granted, waiting, text):
        return [granted, waiting, text]

    with dag("handing_on", params={"model": Param("card_fraud")}) as subject:
        asked = operators.StepOperator(step="decide_retraining", inputs={**ASK, "model": "{{ params.model }}"})
        look(result(asked)["granted"], result(asked)["waiting"], result(asked)["reason"])
    tis = run(subject)
    assert result_of(tis["look"]) == [False, [], ""]
    assert result_of(tis["decide_retraining"])["why"].startswith("No reason to train")
    (report,) = (tmp_path / "home" / "work" / "results" / "handing_on").rglob("*.json")
    assert report.relative_to(report.parents[1]) == Path("decide_retraining/1.json")


def test_a_task_is_skipped_unless_one_of_its_conditions_holds() -> None:
    with dag("conditions") as subject:
        asked = operators.StepOperator(step="decide_retraining", inputs=FromRun(training_request), more_inputs=MODEL)
        granted = result(asked)["granted"]
        no = operators.StepOperator(step="decide_retraining", task_id="no", run_if=[granted], inputs=ASK)
        operators.StepOperator(step="decide_retraining", task_id="yes", run_if=[granted, True], inputs=ASK)
        operators.StepOperator(step="decide_retraining", task_id="after", inputs={**ASK, "reason": result(no)["why"]})
    subject.params.update({"as_of": None, "reason": "a test", "force": False})
    states = {name: ti.state for name, ti in run(subject).items()}
    assert states == {
        "decide_retraining": State.SUCCESS,
        "yes": State.SUCCESS,
        "no": State.SKIPPED,
        "after": State.SKIPPED,
    }


@pytest.mark.long
def test_a_step_is_mapped_over_more_inputs_and_its_results_are_collected() -> None:
    @task
    def names():
        return [{"reason": "one"}, {"reason": "two"}]

    @task
    def look(collected):
        return collected

    with dag("mapping") as subject:
        asked = operators.StepOperator.partial(task_id="ask", step="decide_retraining", inputs=ASK).expand(
            more_inputs=names()
        )
        look(result(asked).each("granted", "request_id"))
    tis = run(subject)
    assert result_of(tis["look"]) == [{"granted": False, "request_id": None}] * 2
    assert {"ask-0", "ask-1"} < set(tis)


def test_what_a_mapped_step_has_no_result_for_is_named_with_the_reason() -> None:
    """The second fails in its step, the third in a way that leaves no message."""

    # Where there was nothing to ask for, the result's reason is empty.
    @task
    def names():
        unknown = {"reason": "two", "request_id": "unknown", "trigger": None}
        return [{"reason": "", "request_id": None}, unknown, {"reason": "three", "request_id": None}]

    @task(trigger_rule="all_done_min_one_success")
    def look(missing):
        return missing

    class Breaking(operators.StepOperator):
        def run_step(self, context: Any) -> dict[str, Any]:
            if self.more_inputs["reason"] == "three":
                raise RuntimeError("not a step's failure")
            return super().run_step(context)

    with dag("missing") as subject:
        wanted = names()
        asked = Breaking.partial(task_id="ask", step="decide_retraining", inputs=ASK).expand(more_inputs=wanted)
        look(result(asked).missing("reason", "request_id", of=wanted))
        failures = task(lambda failed: failed, task_id="failures", trigger_rule="all_done_min_one_success")
        failures(result(asked).failures)
    tis = run(subject)
    assert [tis[f"ask-{i}"].state for i in range(3)] == [State.SUCCESS, State.FAILED, State.FAILED]
    missing = result_of(tis["look"])
    # A field that is empty is left out of the name.
    assert missing.keys() == {"two unknown", "three"}
    assert missing["two unknown"].startswith("decide_retraining: card_fraud has no request 'unknown'")
    assert missing["three"].startswith("It left no message")
    (failed,) = result_of(tis["failures"])
    assert (failed["reason"], failed["request_id"]) == ("two", "unknown")
    assert failed["why"] == missing["two unknown"][:200]


@pytest.mark.long
def test_a_task_that_cleans_up_after_a_failure_leaves_the_run_failed_and_is_skipped_without_one() -> None:
    states = {}
    for name, run_ in (("fails", "a-run"), ("succeeds", "")):
        with dag(f"cleaning_up_{name}") as subject:
            asked = operators.StepOperator(
                step="decide_retraining", inputs={**ASK, "request_id": "unknown" if run_ else None}
            )
            clean = operators.StepOperator(step="decide_retraining", task_id="clean", inputs=ASK, **WHEN_THE_RUN_FAILED)
            asked >> clean
        tis = run(subject)
        states[name] = tis["clean"].state, tis["clean"].get_dagrun().state
    assert states == {"fails": (State.FAILED, "failed"), "succeeds": (State.SKIPPED, "success")}


@pytest.mark.parametrize(
    ("case", "step", "inputs", "tries"),
    others_long(
        [
            ("bad_input", "decide_retraining", {**MODEL, "request_id": "unknown", "run": "a-run"}, 1),
            ("transient", "rollback", {**MODEL, "version": 1}, 2),
            ("unknown_field", "decide_retraining", {**ASK, "typo": 1}, 1),
            (
                "bad_data",
                "ingest",
                {"source": "card_payments", "feed": "events", "partition": "2026-01-05", "uri": "GARBAGE"},
                1,
            ),
        ],
        first=2,
    ),
)
def test_only_what_may_pass_is_tried_again(
    case: str, step: str, inputs: dict[str, Any], tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_LANDING_URI", str(tmp_path))
    garbage = tmp_path / "2026-01-05.parquet"
    garbage.write_text("not parquet")
    if "uri" in inputs:
        inputs = {**inputs, "uri": str(garbage)}
    with dag(f"failing_{case}") as subject:
        operators.StepOperator(step=step, inputs=inputs)
    ti = run(subject)[step]
    assert ti.state == State.FAILED
    assert ti.try_number == tries


def test_an_event_is_emitted_only_when_there_is_one_to_emit() -> None:
    def emit_why(result: dict[str, Any], context: Any) -> dict[str, Any] | None:
        return {"why": result["why"], "of": context["dag"].dag_id}

    for name, event in (("ringing", emit_why), ("silent", lambda result, context: None)):
        with dag(name) as subject:
            operators.StepOperator(step="decide_retraining", inputs=ASK, emits=Asset(f"{name}_bell"), event=event)
        run(subject)
    with create_session() as session:
        # Other tests of the process use the same database.
        events = [each for each in session.scalars(select(AssetEvent)) if each.name.endswith("_bell")]
        assert [(event.name, event.extra["of"]) for event in events] == [("ringing_bell", "ringing")]
