"""The tasks of a training DAG that search parameters, when the spec has the search run in parallel parts."""

from typing import Any

from airflow.sdk import task

from perennial_airflow.mapped_training import FOUND, PART, parts
from perennial_airflow.operators import StepOperator
from perennial_airflow.refs import result
from training.contract.model_spec import ModelSpec

Arguments = dict[str, Any]


def search_in_parts(spec: ModelSpec, fit: Arguments, with_data: Arguments) -> tuple[Arguments, Arguments]:
    """Make the tasks, within a DAG. Returns the inputs of `train`, which are those of a search (`fit`) and what it has
    found, and further arguments of its operator. Without a search in parts: `fit`, and none.

    `with_data`: the arguments that skip a task when there is no dataset.
    """
    search = spec.training.search
    if search is None or search.parallel == 1:
        return fit, {}
    # A call of the decorator with arguments of the task: its stub does not know that.
    each = task(parts, task_id="search_parts")(sorted(search.spaces), search.parallel)  # type: ignore[call-overload]
    mapped = StepOperator.partial(task_id="search", step="search", map_index_template=PART, inputs=fit)
    found = result(mapped.expand(more_inputs=each))
    # Also when no part succeeded, or no chosen estimator has a search.
    rules = {"trigger_rule": "all_done", **with_data}
    return {**fit, "searched": found.each(*FOUND), "search_failures": found.failures}, rules
