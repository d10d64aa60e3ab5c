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
        self.task = task
        self._output = XComArg(task)
        self.path = path
        self.each_of = each

    def __getitem__(self, field: str) -> "ResultRef":
        return ResultRef(self.task, (*self.path, field), self.each_of)

    def each(self, *fields: str) -> "ResultRef":
        """Of a mapped step: a list with these fields of each result."""
        return ResultRef(self.task, self.path, fields)

    def missing(self, field: str, of: ResolveMixin) -> "MissingRef":
        """Of a mapped step: those values `of` the list that no result has as `field`, each with the reason why."""
        return MissingRef(self, field, of)

    def iter_references(self) -> Iterable[Any]:
        return self._output.iter_references()

    def resolve(self, context: Any) -> Any:
        value = self._output.resolve(context)
        if self.each_of:
            # A mapped task that failed has no result, and is left out.
            return [{field: one[field] for field in self.each_of} for one in value[:]]
        for field in self.path:
            # Of a task that failed there is no result; only a task that runs all the same comes here then.
            value = None if value is None else value[field]
        return value

    def __str__(self) -> str:
        fields = "".join(f"[{field!r}]" for field in self.path) + (f".each{self.each_of}" if self.each_of else "")
        return f"result({self.task.task_id}){fields}"


class MissingRef(ResolveMixin):
    """See ResultRef.missing."""

    def __init__(self, result: ResultRef, field: str, of: ResolveMixin) -> None:
        self.result, self.field, self._expected = result, field, of
        self._results, self._failures = XComArg(result.task), XComArg(result.task, key=FAILURE)

    def iter_references(self) -> Iterable[Any]:
        return self._results.iter_references()

    def resolve(self, context: Any) -> dict[str, str]:
        found = {one[self.field] for one in self._results.resolve(context)[:]}
        why = {one[self.field]: one["why"] for one in self._failures.resolve(context)[:]}
        return {name: why.get(name, NOT_KNOWN) for name in self._expected.resolve(context) if name not in found}

    def __str__(self) -> str:
        return f"{self.result}.missing({self.field!r})"


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
