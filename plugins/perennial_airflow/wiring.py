"""Checks that the steps of a DAG fit together, when the DAG file is parsed, against what the steps declare."""

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from airflow.sdk import DAG
from pydantic import BaseModel, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from perennial_airflow.compat.airflow_sdk import DagParam, dag_param_name
from perennial_airflow.refs import FailuresRef, MissingRef, ResultRef
from training.contract.errors import ConfigError
from training.contract.steps import step_spec

#: Source → targets that can hold the same JSON value.
_SCALARS: Mapping[Any, frozenset[Any]] = {
    bool: frozenset({bool}),
    int: frozenset({int, float}),
    float: frozenset({float}),
    str: frozenset({str, date, datetime}),
    date: frozenset({date, str}),
    datetime: frozenset({datetime, str}),
}


def check_wiring(dag: DAG) -> None:
    """Compare the inputs of every step of `dag` with what the step takes and what the steps before it return.

    This finds an input that the step does not take, a missing required input, a field that no result has, and a value
    or a type that cannot fit. Values that are known only when the DAG runs (templates, functions, mapped values) are
    left to the step. Raises ConfigError, which lists all mistakes; Airflow shows it as an import error.
    """
    found = [f"{dag.dag_id}, task {task.task_id}: {problem}" for task in dag.tasks for problem in _problems(dag, task)]
    if found:
        raise ConfigError("The steps do not fit together:\n" + "\n".join(found), hint="Fix the wiring in dags/.")


def _problems(dag: DAG, task: Any) -> Iterator[str]:
    name = _argument(task, "step")
    if name is None:
        return
    fields = step_spec(name).inputs.model_fields
    given, complete = _given(task)
    for field, value in given.items():
        if field not in fields:
            yield f"{name} does not take {field!r}; it takes {', '.join(sorted(fields))}"
        else:
            yield from (f"{field}: {problem}" for problem in _misfits(dag, value, fields[field]))
    missing = [field for field, info in fields.items() if info.is_required() and field not in given]
    if complete and missing:
        yield f"{name} needs {', '.join(missing)}"
    for value in _argument(task, "run_if") or ():
        yield from (f"run_if: {problem}" for problem in _misfits(dag, value, None))


def _argument(task: Any, name: str) -> Any:
    """The argument `name` of an operator, also of a mapped one; None when it has none."""
    return getattr(task, "partial_kwargs", {}).get(name, getattr(task, name, None))


def _given(task: Any) -> tuple[dict[str, Any], bool]:
    """The inputs of a step by name, and whether these are all. A function or a mapping may add more at run time."""
    expand = getattr(getattr(task, "expand_input", None), "value", {})
    parts = [
        _argument(task, "inputs"),
        _argument(task, "more_inputs"),
        *(expand.get(key) for key in ("inputs", "more_inputs")),
    ]
    known = [part for part in parts if isinstance(part, Mapping)]
    given = {field: value for part in known for field, value in part.items()}
    return given, all(part is None or isinstance(part, Mapping) for part in parts)


def _misfits(dag: DAG, value: Any, target: FieldInfo | None) -> Iterator[str]:
    """Why `value` cannot become the input `target`. None as `target` takes any value."""
    wanted = Any if target is None else target.annotation
    if isinstance(value, ResultRef | MissingRef):
        try:
            source = _returned(value) if isinstance(value, ResultRef) else _missing(value)
        except LookupError as error:
            yield error.args[0]
        else:
            if not may_fit(source, wanted):
                yield f"{value} is {_name(source)}, which cannot become {_name(wanted)}"
    elif isinstance(value, FailuresRef):
        if not may_fit(list[dict[str, Any]], wanted):
            yield f"{value} is a list of failures, which cannot become {_name(wanted)}"
    elif isinstance(value, DagParam):
        name = dag_param_name(value)
        if name not in dag.params:
            yield f"the DAG has no parameter {name!r}; it has {', '.join(sorted(dag.params)) or 'none'}"
    elif target is not None and isinstance(value, (str, int, float, bool)) and "{{" not in str(value):
        try:
            kind: Any = Annotated[wanted, *target.metadata] if target.metadata else wanted
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            yield f"{value!r} cannot be its value: {error.errors()[0]['msg']}"


def _returned(ref: ResultRef) -> Any:
    """The type of the value that `ref` refers to. Raises LookupError for a field that does not exist."""
    name = _argument(ref.task, "step")
    if name is None:
        return Any  # not a step: what it returns is not declared
    found: Any = step_spec(name).result
    for field in ref.path:
        found = _field(found, field, ref)
    if ref.each_of:
        fields: dict[str, Any] = {field: (_field(found, field, ref), ...) for field in ref.each_of}
        return list[create_model(f"{_name(found)}Fields", **fields)]  # type: ignore[misc]
    return found


def _missing(ref: MissingRef) -> Any:
    """The type of the value that `ref` refers to. Raises LookupError as _returned does."""
    for field in ref.fields:
        _returned(ref.result[field])
    return dict[str, str]


def _field(source: Any, field: str, ref: ResultRef) -> Any:
    for kind in _alternatives(source):
        if kind is Any:
            return Any
        if get_origin(kind) is dict:
            return get_args(kind)[1]
        if isinstance(kind, type) and issubclass(kind, BaseModel) and field in kind.model_fields:
            return kind.model_fields[field].annotation
    names = [name for kind in _alternatives(source) for name in getattr(kind, "model_fields", {})]
    raise LookupError(f"{ref}: {_name(source)} has no field {field!r}; it has {', '.join(sorted(names)) or 'none'}")


def may_fit(source: Any, target: Any) -> bool:
    """Whether a JSON value of the type `source` can be one of the type `target`. A value that may be None may fit."""
    sources, targets = _alternatives(source), _alternatives(target)
    return any(_fits(one, other) for one in sources for other in targets)


def _fits(source: Any, target: Any) -> bool:
    if Any in (source, target) or source is target:
        return True
    if source in _SCALARS and target in _SCALARS:
        return target in _SCALARS[source]
    origins = tuple(get_origin(kind) or kind for kind in (source, target))
    if all(origin in (list, tuple, set, frozenset) for origin in origins):
        return all(may_fit(a, b) for a in _elements(source) for b in _elements(target))
    if origins == (dict, dict):
        return all(map(may_fit, get_args(source) or (Any, Any), get_args(target) or (Any, Any)))
    ours, theirs = _fields(source), _fields(target)
    if ours is None or theirs is None:
        # A model and a dict: its keys are known only when the DAG runs.
        return dict in origins and (ours is not None or theirs is not None)
    known = {name: kind for name, (kind, _) in theirs.items()}
    needed = {name for name, (_, required) in theirs.items() if required}
    return needed <= ours.keys() <= known.keys() and all(may_fit(ours[name][0], known[name]) for name in ours)


def _fields(kind: Any) -> dict[str, tuple[Any, bool]] | None:
    """Field → its type, and whether it is required; None when `kind` has no fields."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: (info.annotation, info.is_required()) for name, info in kind.model_fields.items()}
    return None


def _elements(kind: Any) -> tuple[Any, ...]:
    return tuple(each for each in get_args(kind) if each is not Ellipsis) or (Any,)


def _alternatives(kind: Any) -> list[Any]:
    """The types that `kind` stands for, None left out unless it is all there is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _alternatives(arguments[0])
    if origin is Literal:
        return [type(value) for value in arguments]
    if origin is Union or type(kind).__name__ == "UnionType":
        found = [each for argument in arguments for each in _alternatives(argument)]
        return [each for each in found if each is not type(None)] or found
    return [kind]


def _name(kind: Any) -> str:
    """`kind` as a person writes it: without the modules of its types."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else re.sub(r"\b\w+\.", "", str(kind))
