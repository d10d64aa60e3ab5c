"""Inputs of a task that are known only when it runs: a field of another step's result, or a value of the run.

`result(task)["x"]["y"]` refers to a field of a result. Airflow's own `task.output["x"]` refers to an XCom key.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from airflow.sdk import XComArg

from perennial_airflow.compat.airflow_sdk import ResolveMixin

#: Longest reason, in characters, of each of the mapped tasks that failed. Together they are inputs of one command line.
MAXIMUM_REASON = 200
#: The key of the XCom that a mapped step leaves when it fails: its own inputs, and `why`.
FAILURE = "failure"
NOT_KNOWN = "It left no message; see the log of its task."


class ResultRef(ResolveMixin):
    """A step's result, or a field of it. A task that has it as an input runs after the step."""

    def __init__(self, task: Any, path: tuple[str, ...] = (), each: tuple[str, ...] = ()) -> None:
        self.task = task
        self._output = XComArg(task)
        self.path = path
        self.each_of = each

    def __getitem__(self, field: str) -> "ResultRef":
        return ResultRef(self.task, (*self.path, field), self.each_of)

    def each(self, *fields: str) -> "ResultRef":
        """For a mapped step: a list with these fields of each result."""
        return ResultRef(self.task, self.path, fields)

    def missing(self, *fields: str, of: ResolveMixin) -> "MissingRef":
        """For a mapped step: those records in the list `of` whose `fields` no result has, each with the reason why.

        A record is named by the values of its fields, with a space between those that are not empty.
        """
        return MissingRef(self, fields, of)

    @property
    def failures(self) -> "FailuresRef":
        """For a mapped step: of each mapped task that failed its own inputs, and `why` in short."""
        return FailuresRef(self.task)

    def iter_references(self) -> Iterable[Any]:
        return self._output.iter_references()

    def resolve(self, context: Any) -> Any:
        value = self._output.resolve(context)
        if self.each_of:
            # A mapped task that failed has no result and is left out.
            return [{field: one[field] for field in self.each_of} for one in value[:]]
        for field in self.path:
            # A task that failed has no result. Only tasks that run after failures come here then.
            value = None if value is None else value[field]
        return value

    def __str__(self) -> str:
        fields = "".join(f"[{field!r}]" for field in self.path) + (f".each{self.each_of}" if self.each_of else "")
        return f"result({self.task.task_id}){fields}"


class MissingRef(ResolveMixin):
    """See ResultRef.missing."""

    def __init__(self, result: ResultRef, fields: tuple[str, ...], of: ResolveMixin) -> None:
        self.result, self.fields, self._expected = result, fields, of
        self._results, self._failures = XComArg(result.task), XComArg(result.task, key=FAILURE)

    def iter_references(self) -> Iterable[Any]:
        yield from self._results.iter_references()
        yield from self._expected.iter_references()

    def resolve(self, context: Any) -> dict[str, str]:
        found = {self._name(one) for one in self._results.resolve(context)[:]}
        why = {self._name(one): one["why"] for one in self._failures.resolve(context)[:]}
        # Without records the task that makes them did not run: nothing was asked for.
        names = [self._name(one) for one in self._expected.resolve(context) or ()]
        return {name: why.get(name, NOT_KNOWN) for name in names if name not in found}

    def _name(self, record: Mapping[str, Any]) -> str:
        return " ".join(record[field] for field in self.fields if record[field])

    def __str__(self) -> str:
        return f"{self.result}.missing{self.fields}"


class FailuresRef(ResolveMixin):
    """See ResultRef.failures. A task that left no message is not among them."""

    def __init__(self, task: Any) -> None:
        self._task, self._failures = task, XComArg(task, key=FAILURE)

    def iter_references(self) -> Iterable[Any]:
        return self._failures.iter_references()

    def resolve(self, context: Any) -> list[dict[str, Any]]:
        return [{**one, "why": one["why"][:MAXIMUM_REASON]} for one in self._failures.resolve(context)[:]]

    def __str__(self) -> str:
        return f"result({self._task.task_id}).failures"


def result(task: Any) -> ResultRef:
    """The result of the step that `task` runs, as an input of another task."""
    return ResultRef(task)


class FromRun(ResolveMixin):
    """Inputs that a function computes from the run's context."""

    def __init__(self, function: Callable[[Mapping[str, Any]], Any]) -> None:
        self._function = function

    def iter_references(self) -> Iterable[Any]:
        return ()

    def resolve(self, context: Any) -> Any:
        return self._function(context)

    def __str__(self) -> str:
        return f"{self._function.__module__}.{self._function.__name__}(run)"
