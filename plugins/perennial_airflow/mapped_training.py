"""What the mapped tasks of a training run are mapped over: estimators and windows, and the parts of their searches."""

from collections.abc import Collection, Mapping
from typing import Any

from training.contract.messages import SearchResult

#: What `train` takes of each part's result: all of it.
FOUND = tuple(SearchResult.model_fields)
#: Labels of the mapped tasks.
CANDIDATE = "{{ (task.more_inputs['estimator'] ~ ' ' ~ task.more_inputs['window']) | trim }}"
PART = "{{ task.more_inputs['estimator'] }} {{ task.more_inputs['part'] }}"
#: Inputs that tell one mapped `train` from another.
NAMED_BY = ("estimator", "window")


def chosen(windows: list[Mapping[str, Any]], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What to train: all estimators of the model, unless a person chose some, on each of the dataset's windows."""
    return [{"estimator": name, "window": window["name"]} for window in windows for name in params["estimators"]]


def parts(searched: Collection[str], parallel: int, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of the searches: `parallel` of each chosen estimator that is among those that are `searched`."""
    names = [name for name in params["estimators"] if name in searched]
    return [{"estimator": name, "part": part} for name in names for part in range(parallel)]
