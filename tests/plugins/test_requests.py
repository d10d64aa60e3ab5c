"""Why a training run is there, and which waiting request rings next."""

from types import SimpleNamespace
from typing import Any

import pytest
from perennial_airflow.requests import retrain_event, training_request
from perennial_notes import reason

from training.contract.messages import DecideRetrainingInputs, DecideRetrainingResult

PARAMS = {"estimators": ["mlp"], "window_days": None, "as_of": "2026-03-02", "reason": "audit", "force": True}
PARAMS |= {"change": "2026-02-20"}
GRANTED = {"request_id": "drift-1", "trigger": "drift", "as_of": "2026-03-02", "reason": "5 of 17 features drifted"}


def context(run_type: str, *extras: dict[str, Any] | None) -> dict[str, Any]:
    events = {"retrain": [SimpleNamespace(extra=extra) for extra in extras]} if extras else {}
    run = SimpleNamespace(run_id="a-run", run_type=run_type, triggering_user_name="ada")
    return {"dag_run": run, "params": PARAMS, "triggering_asset_events": events}


def asked(context: dict[str, Any]) -> dict[str, Any]:
    inputs = DecideRetrainingInputs.model_validate({"model": "card_fraud", **training_request(context)})
    return inputs.model_dump(mode="json", exclude_defaults=True, exclude={"model"})


def test_a_person_asks_with_the_parameters_of_the_run() -> None:
    wanted = {"trigger": "person", "as_of": "2026-03-02", "reason": "audit", "force": True, "run": "a-run"}
    wanted |= {"change": "2026-02-20"}
    assert asked(context("manual")) == wanted | {"requested_by": "ada"}


def test_the_schedule_asks_without_anyones_parameters() -> None:
    assert asked(context("scheduled")) == {"trigger": "schedule", "reason": "By schedule", "run": "a-run"}


def test_an_asset_event_names_the_request_that_the_run_takes_up() -> None:
    merged = context("asset_triggered", {}, GRANTED, {**GRANTED, "request_id": "drift-2"})
    assert asked(merged) == {"request_id": "drift-1", "run": "a-run"}


def test_an_event_that_names_no_request_becomes_one() -> None:
    posted = asked(context("asset_triggered", {"trigger": "code", "reason": "new features"}))
    assert posted == {"trigger": "code", "reason": "new features", "run": "a-run"}
    assert asked(context("asset_triggered", None))["trigger"] == "new_data"


@pytest.mark.parametrize(
    ("granted", "waiting", "rings_for"),
    [
        (True, ["drift-1"], "drift-1"),  # granted just now
        (True, ["older", "drift-1"], "drift-1"),
        (True, [], None),  # taken up by this very run
        (True, ["other"], "other"),  # taken up, and another is left behind
        (False, ["other"], "other"),
        (False, [], None),
    ],
)
def test_it_rings_for_the_granted_request_and_else_for_one_left_behind(
    granted: bool, waiting: list[str], rings_for: str | None
) -> None:
    result = DecideRetrainingResult.model_validate({**GRANTED, "granted": granted, "why": "", "waiting": waiting})
    event = retrain_event(result.model_dump(mode="json"), {})
    assert (event or {}).get("request_id") == rings_for
    if rings_for == "drift-1":
        assert event == GRANTED


def test_nothing_rings_when_there_was_no_reason_to_train() -> None:
    nothing = {"request_id": None, "granted": False, "why": "", "as_of": None, "trigger": None, "reason": ""}
    assert retrain_event({**nothing, "waiting": []}, {}) is None


def test_a_runs_note_is_the_reason_that_was_given() -> None:
    assert reason({"reason": "audit"}, []) == "audit"
    assert reason(None, [GRANTED, GRANTED, {}]) == "5 of 17 features drifted"
    assert reason({}, [{"from_trigger": True, "payload": {"reason": "Landed: events/2026-01-05"}}]) == (
        "Landed: events/2026-01-05"
    )
    assert reason(None, []) == ""
