"""Steps that do not fit together are found when a DAG is parsed."""

from datetime import date, datetime
from typing import Any, Literal

import pytest
from airflow.sdk import DAG, Param, task
from perennial_airflow.operators import StepOperator
from perennial_airflow.refs import FromRun, result
from perennial_airflow.wiring import check_wiring, may_fit

from training.contract.base import Days
from training.contract.errors import ConfigError
from training.contract.messages import Candidate, IngestResult, TrainResult

MODEL = {"model": "card_fraud"}
SOURCE = {"source": "card_payments"}
INGEST = {**SOURCE, "feed": "events", "partition": "2026-01-05", "uri": "file.parquet"}


def problem(dag: DAG) -> str:
    with pytest.raises(ConfigError) as raised:
        check_wiring(dag)
    return raised.value.message.split("\n", 1)[1]


def features_after_ingest(**inputs: Any) -> DAG:
    with DAG("data", schedule=None) as dag:
        ingest = StepOperator(step="ingest", inputs=INGEST)
        given = {name: value(result(ingest)) if callable(value) else value for name, value in inputs.items()}
        StepOperator(step="features", inputs={**SOURCE, **given})
    return dag


VERSIONS = {"table_versions": lambda ingested: ingested["table_versions"]}


def test_what_fits_is_no_problem() -> None:
    check_wiring(features_after_ingest(days=lambda ingested: ingested["affected"], **VERSIONS))
    check_wiring(features_after_ingest(days=None, **VERSIONS))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            {"days": lambda r: r["afected"], **VERSIONS},
            "data, task features: days: result(ingest)['afected']: IngestResult has no field 'afected'; it has",
        ),
        ({"days": lambda r: r["affected"]["first"], **VERSIONS}, "Days | None has no field 'first'; it has end, start"),
        ({"days": lambda r: r["rows_read"], **VERSIONS}, "result(ingest)['rows_read'] is int, which cannot become"),
        ({"days": lambda r: r["affected"]}, "data, task features: features needs table_versions"),
        (
            {"days": lambda r: r["affected"], "day": 1, **VERSIONS},
            "does not take 'day'; it takes days, source",
        ),
        ({"days": "monday", **VERSIONS}, "days: 'monday' cannot be its value"),
        ({"days": lambda r: r["affected"], "table_versions": lambda r: r["quarantine_reasons"]["events"]}, "is int"),
    ],
)
def test_what_does_not_fit_is_named(inputs: dict[str, Any], said: str) -> None:
    assert said in problem(features_after_ingest(**inputs))


def test_all_problems_of_a_dag_are_listed() -> None:
    assert len(problem(features_after_ingest(days=lambda r: r["a"], dayz=1)).splitlines()) == 3


def test_parameters_conditions_and_constants_are_checked() -> None:
    with DAG("rollback", schedule=None, params={"version": Param(1, type="integer")}) as dag:
        asked = StepOperator(step="decide_retraining", inputs={**MODEL, "trigger": "wish"})
        StepOperator(
            step="rollback",
            inputs={**MODEL, "version": dag.param("version"), "run": "{{ run_id }}"},
            run_if=[result(asked)["grantd"]],
        )
    assert problem(dag).splitlines() == [
        "rollback, task decide_retraining: trigger: 'wish' cannot be its value: Input should be 'first', 'schedule', "
        "'drift', 'performance', 'new_data', 'code' or 'person'",
        "rollback, task rollback: run_if: result(decide_retraining)['grantd']: DecideRetrainingResult has no field "
        "'grantd'; it has as_of, change, granted, reason, request_id, snapshot, trigger, waiting, why",
    ]
    with DAG("other", schedule=None, params={"version": 1}) as dag:
        StepOperator(step="rollback", inputs={**MODEL, "version": dag.param("versoin", default=None)})
    dag.params = {"version": 1}
    assert "the DAG has no parameter 'versoin'; it has version" in problem(dag)


def mapped(
    fields: tuple[str, ...] = ("estimator", "run_id", "artifact_uri", "digest"), named_by: str = "window", **given: Any
) -> DAG:
    @task
    def chosen():
        return [{"estimator": "mlp", "window": ""}]

    with DAG("train", schedule=None) as dag:
        inputs = {**MODEL, "dataset_uri": "file", "seed": 1, **given}
        asked_for = chosen()
        train = StepOperator.partial(task_id="train", step="train", inputs=inputs).expand(more_inputs=asked_for)
        candidates = result(train).each(*fields)
        missing = result(train).missing("estimator", named_by, of=asked_for)
        asked = {"candidates": candidates, "dropped_out": missing, "dataset_uri": "file", "seed": 1}
        StepOperator(step="evaluate", inputs={**MODEL, **asked})
    return dag


def test_mapped_steps_are_checked_and_what_the_mapping_adds_is_left_to_the_step() -> None:
    check_wiring(mapped())
    assert "task train: train does not take 'sed'" in problem(mapped(sed=1))
    assert "TrainResult has no field 'digset'" in problem(mapped(("estimator", "run_id", "artifact_uri", "digset")))
    assert "TrainResult has no field 'windo'" in problem(mapped(named_by="windo"))
    few = problem(mapped(("estimator", "run_id")))
    assert "each('estimator', 'run_id') is list[TrainResultFields], which cannot become list[Candidate]" in few


def test_failures_of_a_mapped_step_fit_a_list_of_records_only() -> None:
    def failures(field: str) -> DAG:
        with DAG("parts", schedule=None) as dag:
            inputs = {**MODEL, "dataset_uri": "file", "seed": 1}
            parts = [{"estimator": "mlp", "part": 0}]
            search = StepOperator.partial(task_id="search", step="search", inputs=inputs).expand(more_inputs=parts)
            StepOperator(step="train", inputs={**inputs, "estimator": "mlp", field: result(search).failures})
        return dag

    check_wiring(failures("search_failures"))
    assert "reason: result(search).failures is a list of failures, which cannot become str" in problem(
        failures("reason")
    )


def test_inputs_that_a_function_makes_are_left_to_the_step() -> None:
    with DAG("asked", schedule=None) as dag:
        StepOperator(step="ingest", inputs=FromRun(lambda context: INGEST), more_inputs=SOURCE)
    check_wiring(dag)


@pytest.mark.parametrize(
    ("source", "target", "fits"),
    [
        (int, float, True),
        (float, int, False),
        (str, int, False),
        (date, str, True),
        (str, date, True),
        (date | None, date, True),
        (None, int, False),
        (datetime, Literal["a"], True),
        (Literal["a", "b"], str, True),
        (list[str], tuple[str, ...], True),
        (list[str], list[int], False),
        (list[str], str, False),
        (dict[str, int], dict[str, str], False),
        (dict[str, Any], Days, True),
        (Days, dict[str, Any], True),
        (TrainResult, Candidate, False),
        (IngestResult, IngestResult | None, True),
        (Any, Days, True),
        (Days, Any, True),
    ],
)
def test_types_that_may_fit(source: Any, target: Any, fits: bool) -> None:
    assert may_fit(source, target) is fits
