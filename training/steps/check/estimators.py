"""Check the task of a spec, and the estimators' parameters."""

from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec
from training.contract.problems import Problem
from training.contract.registries import ESTIMATORS
from training.domain.task_kind import task_of
from training.estimators import base
from training.estimators.base.try_out import try_out


def check_estimators(spec: ModelSpec, file: str) -> Iterator[Problem]:
    """Find a task that its kind refuses, estimators that cannot learn its target, unknown parameters, values of a wrong
    type, and estimators of other packages that cannot be fitted and exported.
    """
    try:
        target = task_of(spec).target
    except ConfigError as error:
        yield Problem(file=file, place="task", what=error.message, fix=error.hint)
        return
    search = spec.training.search
    for name, space in (search.spaces if search else {}).items():
        try:
            base.parameters_for(name, base.load(name), target, dict.fromkeys(space))
        except ConfigError as error:
            place = f"training.search.spaces.{name}"
            yield Problem(file=file, place=place, what=error.message.removeprefix(f"{name} "), fix=error.hint)
    if spec.training.calibration != "none" and target == "number":
        what = f"training.calibration is {spec.training.calibration}, but a regression has no probabilities"
        yield Problem(file=file, place="training.calibration", what=what, fix="Write `calibration: none`.")
    for name, given in spec.training.estimators.items():
        place = f"training.estimators.{name}"
        try:
            estimator = base.load(name)
            parameters = base.parameters_for(name, estimator, target, given)
        except ConfigError as error:
            yield Problem(file=file, place=place, what=error.message.removeprefix(f"{name} "), fix=error.hint)
            continue
        wrong = list(_of_wrong_types(given, estimator.DEFAULTS[target], place, file))
        yield from wrong
        if not wrong and name not in ESTIMATORS.modules:
            try:
                try_out(name, estimator, target, parameters)
            except ConfigError as error:
                yield Problem(file=file, place=place, what=error.message.removeprefix(f"{name} "), fix=error.hint)


def _of_wrong_types(given: Mapping[str, Any], defaults: Mapping[str, Any], place: str, file: str) -> Iterator[Problem]:
    for parameter, value in given.items():
        default = defaults[parameter]
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
