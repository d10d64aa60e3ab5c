"""The kinds of implementations that specs and settings name. Each entry says which package the members are in.

Looking at the names imports none of the members, so that a DAG file can check a spec.
"""

from importlib.util import find_spec
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from training.contract.implementations import Implementations

#: Each is a class or function without arguments that returns a training.estimators.base.Estimator.
ESTIMATORS: Implementations[Any] = Implementations("estimator", "training.estimators")
#: Each is a training.domain.retraining_policy.Policy.
POLICIES: Implementations[Any] = Implementations("policy", "training.domain.policies")
#: Each is a training.domain.drift.DriftTest.
DRIFT_TESTS: Implementations[Any] = Implementations("drift test", "training.adapters.drift_tests")
#: Each is a training.domain.feature_engine.FeatureEngine: a class whose only argument is the URL of the engine.
FEATURE_ENGINES: Implementations[Any] = Implementations("feature engine", "training.adapters.feature_engines")

#: Each is a class that is a training.domain.task_kind.TaskKind.
TASKS: Implementations[Any] = Implementations("task", "training.domain.tasks")


def _known_estimator(name: str) -> str:
    return name if ":" in name else _known(ESTIMATORS, name, " or `package.module:factory`")


def _known_drift_test(name: str) -> str:
    return _known(DRIFT_TESTS, name)


def _known_policy(name: str) -> str:
    return _known(POLICIES, name)


def _known_task(name: str) -> str:
    return _known(TASKS, name)


def _known(kind: Implementations[Any], name: str, also: str = "") -> str:
    """Raises PydanticCustomError for an unknown name. An image that does not have the members accepts every name."""
    if not _is_installed(kind.package) or name in kind:
        return name
    expected = ", ".join(repr(each) for each in kind.names()) + also
    raise PydanticCustomError("unknown_name", "Input should be {expected}", {"expected": expected})


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # The package that it is in is not there either.
        return False


#: An estimator, drift test, policy or kind of task in a spec.
KnownEstimator = Annotated[str, AfterValidator(_known_estimator)]
KnownDriftTest = Annotated[str, AfterValidator(_known_drift_test)]
KnownPolicy = Annotated[str, AfterValidator(_known_policy)]
KnownTask = Annotated[str, AfterValidator(_known_task)]
