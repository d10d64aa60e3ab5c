"""Values that a task's inputs take from elsewhere when it runs: a field of another step's result, the run itself.

Airflow's own `task.output["x"]` names an XCom key, not a field; `result(task)["x"]["y"]` names a field of the result.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from airflow.sdk import XComArg
from airflow.sdk.definitions._internal.mixins import ResolveMixin

#: The XCom that a mapped step leaves when it fails: its own inputs, and `why`.
FAILURE = "failure"
NOT_KNOWN = "It left no message: the log of its task says how it ended."


class ResultRef(ResolveMixin):
    """A step's result, or a field of it. Taking it as an input makes the step an upstream of the task."""

    def __init__(self, task: Any, path: tuple[str, ...] = (), each: tuple[str, ...] = ()) -> None:
        self._task = task
        self._output = XComArg(task)
        self._path = path
        self._each = each

    def __getitem__(self, field: str) -> "ResultRef":
        return ResultRef(self._task, (*self._path, field), self._each)

    def each(self, *fields: str) -> "ResultRef":
        """Of a mapped step: a list with these fields of each result."""
        return ResultRef(self._task, self._path, fields)

    def missing(self, field: str, of: ResolveMixin) -> "MissingRef":
        """Of a mapped step: those values `of` the list that no result has as `field`, each with the reason why."""
        return MissingRef(self._task, field, of)

    def iter_references(self) -> Iterable[Any]:
        return self._output.iter_references()

    def resolve(self, context: Any) -> Any:
        value = self._output.resolve(context)
        if self._each:
            # A mapped task that failed has no result, and is left out.
            return [{field: one[field] for field in self._each} for one in value[:]]
        for field in self._path:
            # Of a task that failed there is no result; only a task that runs all the same comes here then.
            value = None if value is None else value[field]
        return value

    def __str__(self) -> str:
        fields = "".join(f"[{field!r}]" for field in self._path) + (f".each{self._each}" if self._each else "")
        return f"result({self._task.task_id}){fields}"


class MissingRef(ResolveMixin):
    """See ResultRef.missing."""

    def __init__(self, task: Any, field: str, of: ResolveMixin) -> None:
        self._task = task
        self._results, self._failures = XComArg(task), XComArg(task, key=FAILURE)
        self._field, self._expected = field, of

    def iter_references(self) -> Iterable[Any]:
        return self._results.iter_references()

    def resolve(self, context: Any) -> dict[str, str]:
        found = {one[self._field] for one in self._results.resolve(context)[:]}
        why = {one[self._field]: one["why"] for one in self._failures.resolve(context)[:]}
        return {name: why.get(name, NOT_KNOWN) for name in self._expected.resolve(context) if name not in found}

    def __str__(self) -> str:
        return f"result({self._task.task_id}).missing({self._field!r})"


def result(task: Any) -> ResultRef:
    """The result of the step that `task` runs, as an input of another task."""
    return ResultRef(task)


class FromRun(ResolveMixin):
    """Inputs computed from the run's context by a function."""

    def __init__(self, function: Callable[[Mapping[str, Any]], Any]) -> None:
        self._function = function

    def iter_references(self) -> Iterable[Any]:
        return ()

    def resolve(self, context: Any) -> Any:
        return self._function(context)

    def __str__(self) -> str:
        return f"{self._function.__module__}.{self._function.__name__}(run)"
