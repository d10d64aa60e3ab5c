"""Messages: frozen, strict, and the same after a trip through JSON."""

from datetime import date

import pytest
from pydantic import ValidationError

from training.contract.base import Days
from training.contract.messages import DecideRetrainingInputs, DriftResult, IngestInputs, PerformanceResult, StepReport
from training.contract.steps import STEPS


def test_days_are_half_open_and_not_backwards() -> None:
    days = Days.ending(date(2026, 3, 1), 7)
    assert (days.start, len(days)) == (date(2026, 2, 22), 7)
    assert str(days) == "2026-02-22 … 2026-02-28"
    with pytest.raises(ValidationError, match="must come after start"):
        Days(start=date(2026, 3, 1), end=date(2026, 3, 1))


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ValidationError, match="aas_of"):
        DecideRetrainingInputs.model_validate({"model": "card_fraud", "aas_of": "2026-01-05"})


def test_messages_do_not_change() -> None:
    inputs = IngestInputs(source="card_payments", feed="events", partition="2026-01-05", uri="x")
    with pytest.raises(ValidationError, match="frozen"):
        inputs.uri = "y"


@pytest.mark.parametrize("partition", ["2026-1-5", "2026-01-05.parquet", "2026-01-05_", "../2026-01-05", ""])
def test_a_partition_is_named_after_its_days(partition: str) -> None:
    with pytest.raises(ValidationError, match="partition"):
        IngestInputs(source="card_payments", feed="events", partition=partition, uri="x")


@pytest.mark.parametrize("model", ["Card", "../card_fraud", "", "1card", "card-fraud"])
def test_a_model_name_is_safe_as_a_path_and_as_an_identifier(model: str) -> None:
    with pytest.raises(ValidationError, match="model"):
        DecideRetrainingInputs(model=model, trigger="person")


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "succeeded"},
        {"status": "failed"},
        {"status": "failed", "result": {}},
        {"status": "succeeded", "result": {}, "error": {"type": "X", "message": "m", "retryable": True}},
    ],
)
def test_a_report_has_a_result_or_an_error(fields: dict) -> None:
    with pytest.raises(ValidationError, match="a succeeded step has a result"):
        StepReport.model_validate({"step": "drift", **fields})


@pytest.mark.parametrize("name", STEPS)
def test_inputs_and_results_have_a_schema_without_loose_ends(name: str) -> None:
    for message in (STEPS[name].inputs, STEPS[name].result):
        schema = message.model_json_schema()
        assert schema["additionalProperties"] is False
        assert schema["properties"]


def test_results_of_the_version_before_can_be_read() -> None:
    """Perennial 0.1: horizon, champion and tables in the result itself, and `history_days`, which nobody read."""
    body = {"outcome": "no data", "as_of": "2026-03-01", "history_days": 35, "champion_version": 4}
    old = DriftResult.model_validate({**body, "table_versions": {"events": 7}})
    assert (str(old.as_of), old.champion_version, old.table_versions) == ("2026-03-01", 4, {"events": 7})
    assert DriftResult.model_validate_json(old.model_dump_json()) == old
    performance = {"outcome": "no predictions", "table_versions": {"labels": 2}}
    taken = DecideRetrainingInputs.model_validate({"model": "m", "drift": body, "performance": performance})
    assert taken.performance == PerformanceResult(outcome="no predictions", table_versions={"labels": 2})
    with pytest.raises(ValidationError, match="typo"):
        DriftResult.model_validate({**body, "typo": 1})
