"""Check the task of a spec, and the estimators' parameters."""

from collections.abc import Iterator
from numbers import Real
from typing import Any

from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec
from training.contract.problems import Problem
from training.domain.task_kind import task_of
from training.estimators import base


def check_estimators(spec: ModelSpec, file: str) -> Iterator[Problem]:
    """Find a task that its kind refuses, estimators that cannot learn its target, unknown parameters, and values of a
    wrong type."""
    try:
        target = task_of(spec).target
    except ConfigError as error:
        yield Problem(file=file, place="task", what=error.message, fix=error.hint)
        return
    for name, given in spec.training.estimators.items():
        place, estimator = f"training.estimators.{name}", base.load(name)
        try:
            base.parameters_for(name, estimator, target, given)
        except ConfigError as error:
            yield Problem(file=file, place=place, what=error.message.removeprefix(f"{name} "), fix=error.hint)
        defaults = estimator.DEFAULTS.get(target, {})
        for parameter, value in given.items():
            default = defaults.get(parameter)
            if default is not None and not _same_type(value, default):
                what = f"is {value!r}, but the default is {default!r}"
                fix = "Write a value of the same type as the default."
                yield Problem(file=file, place=f"{place}.{parameter}", what=what, fix=fix)


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return isinstance(value, list) and all(_same_type(item, default[0]) for item in value)
    if isinstance(default, str):
        return isinstance(value, str | Real) and not isinstance(value, bool)
    return value is None or (isinstance(value, Real) and isinstance(value, bool) == isinstance(default, bool))
