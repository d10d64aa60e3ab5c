"""What the mapped tasks of a training run are mapped over: its estimators, and the parts of their searches."""

from collections.abc import Collection, Mapping
from typing import Any

from training.contract.messages import SearchResult

#: What `train` takes of each part's result: all of it.
FOUND = tuple(SearchResult.model_fields)
#: Labels of the mapped tasks.
ESTIMATOR = "{{ task.more_inputs['estimator'] }}"
PART = ESTIMATOR + " {{ task.more_inputs['part'] }}"


def chosen(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The estimators to train: all of the model's, unless a person chose some."""
    return [{"estimator": name} for name in params["estimators"]]


def parts(searched: Collection[str], parallel: int, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of the searches: `parallel` of each chosen estimator that is among those that are `searched`."""
    names = [name for name in params["estimators"] if name in searched]
    return [{"estimator": name, "part": part} for name in names for part in range(parallel)]
