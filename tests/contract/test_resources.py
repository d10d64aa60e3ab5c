"""What a step asks of a cluster: the default, what a step changes of it, and what an estimator changes again."""

from typing import Any

import pytest
from pydantic import ValidationError

from training.contract.resources import Resources, ResourcesSpec

SPEC = ResourcesSpec.model_validate(
    {
        "default": {"cpu": "500m", "memory": "1Gi"},
        "steps": {"train": {"cpu": "4", "shared_memory": "2Gi"}},
        "estimators": {"mlp": {"gpus": 2, "cpu": "8", "gpu_product": "NVIDIA-L4"}},
    }
)


def test_an_override_changes_what_it_names_and_nothing_else() -> None:
    assert SPEC.of("evaluate") == Resources(cpu="500m", memory="1Gi")
    assert SPEC.of("train") == Resources(cpu="4", memory="1Gi", shared_memory="2Gi")
    mlp = SPEC.of("train", "mlp")
    assert (mlp.cpu, mlp.memory, mlp.shared_memory, mlp.gpus) == ("8", "1Gi", "2Gi", 2)
    assert SPEC.of("train", "random_forest") == SPEC.of("train")


def test_a_search_has_the_resources_of_the_fit_unless_it_has_its_own() -> None:
    assert SPEC.of("search", "mlp") == SPEC.of("train", "mlp")
    smaller = ResourcesSpec.model_validate({"steps": {"train": {"cpu": "4", "memory": "8Gi"}, "search": {"cpu": "1"}}})
    assert smaller.of("search") == Resources(cpu="1", memory="8Gi")
    assert smaller.of("train") == Resources(cpu="4", memory="8Gi")


@pytest.mark.parametrize(
    "wrong",
    [
        {"default": {"memory": "lots"}},
        {"default": {"gpu": 1}},
        {"default": {"gpus": -1}},
        {"default": {"nodes": 0}},
        {"steps": {"trian": {"cpu": "2"}}},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ResourcesSpec.model_validate(wrong)
