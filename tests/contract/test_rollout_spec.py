"""Rollout plans: what a spec may ask for, and what it may leave out."""

from typing import Any

import pytest
from pydantic import ValidationError

from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.rollout_spec import RolloutSpec, StageSpec

FULL = {"mode": "full"}


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"mode": "canary", "requests": 10}, "weight must be set for canary and ab"),
        ({"mode": "shadow", "weight": 10, "requests": 10}, "weight must be set for canary and ab"),
        ({"mode": "canary", "weight": 101, "requests": 10}, "less than or equal to 100"),
        ({"mode": "canary", "weight": 0, "requests": 10}, "greater than 0"),
        ({"mode": "ab", "weight": 50, "requests": 10}, "experiment must be set for ab"),
        ({"mode": "canary", "weight": 50, "experiment": "x", "requests": 10}, "experiment must be set for ab"),
        ({"mode": "shadow"}, "needs requests, minutes, or both"),
        ({"mode": "shadow", "minutes": 90}, "not be more than maximum_minutes"),
        ({"mode": "shadow", "requests": 1, "on_silence": "wait"}, "'promote', 'hold' or 'fail'"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(stage: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        StageSpec.model_validate(stage)


@pytest.mark.parametrize("stages", [[], [{"mode": "shadow", "requests": 1}], [FULL, FULL]])
def test_a_plan_ends_in_full_and_only_there(stages: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError, match="full must be the last stage"):
        RolloutSpec.model_validate({"stages": stages})


def test_without_a_plan_a_version_goes_straight_to_full() -> None:
    assert [stage.mode for stage in RolloutSpec().stages] == ["full"]


def test_requests_stick_by_the_entity_unless_the_spec_says_otherwise(spec: ModelSpec) -> None:
    fields = spec.model_dump()
    del fields["rollout"]
    assert ModelSpec.model_validate(fields).rollout.sticky_by == spec.evaluation.entity
    changed = ModelSpec.model_validate({**fields, "rollout": {"sticky_by": "terminal_id"}})
    assert changed.rollout.sticky_by == "terminal_id"
    with pytest.raises(ValidationError, match=r"rollout\.sticky_by names 'card'"):
        ModelSpec.model_validate({**fields, "rollout": {"sticky_by": "card"}})


def test_the_reference_model_goes_through_stages() -> None:
    modes = [stage.mode for stage in load_model_spec("card_fraud").rollout.stages]
    assert modes == ["shadow", "canary", "canary", "full"]
