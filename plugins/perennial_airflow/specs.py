"""For which sources and models a DAG file makes DAGs, and the arguments that all DAGs of a source or model share."""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from airflow.sdk import get_parsing_context

from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec, load_model_spec, model_names, models_of, source_of
from training.contract.source_spec import SourceSpec, load_source_spec, source_names
from training.contract.spec_file import SpecFile, misnamed_specs
from training.settings import load_settings

log = logging.getLogger(__name__)

S = TypeVar("S", bound=SpecFile)

#: A transient failure is tried six times within about two and a half minutes. A server restarts faster than that.
DEFAULT_ARGS: dict[str, Any] = {
    "retries": 5,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=1),
}


def source_specs(kind: str) -> Iterator[SourceSpec]:
    """The sources for which to make `<source>_<kind>`: all, or in a task's process only the task's source.

    A broken spec is left out, so that the other sources keep their DAGs. `dags/broken_specs.py` reports it.
    """
    folder = load_settings().feature_repo
    return _wanted(kind, lambda: source_names(folder), lambda name: load_source_spec(name, folder))


def model_specs(kind: str) -> Iterator[ModelSpec]:
    """The models for which to make `<model>_<kind>`, as `source_specs`. A model of a broken source is left out too."""
    settings = load_settings()
    models, sources = settings.models_dir, settings.feature_repo
    return _wanted(kind, lambda: model_names(models), lambda name: load_model_spec(name, models, sources))


def models_that_learn_from(source: str) -> list[dict[str, str]]:
    """The inputs of a mapped task of each model of `source`."""
    return [{"model": name} for name in models_of(source, load_settings().models_dir)]


def _wanted(kind: str, names: Callable[[], list[str]], load: Callable[[str], S]) -> Iterator[S]:
    for name in _names(kind, names):
        try:
            yield load(name)
        except ConfigError as error:
            log.warning("No DAG %s_%s: %s", name, kind, error)


def _names(kind: str, names: Callable[[], list[str]]) -> list[str]:
    """What `names` returns. In a task's process only the name that its DAG's id begins with, without a listing."""
    dag_id, ending = get_parsing_context().dag_id, f"_{kind}"
    if dag_id is None:
        return names()
    return [dag_id.removesuffix(ending)] if dag_id.endswith(ending) else []


def broken_specs() -> list[str]:
    """The mistakes in specs that cannot be loaded, a paragraph each. The check step finds those in SQL and Feast.

    The models of a broken source are named with it, and not reported again.
    """
    settings = load_settings()
    models, sources = settings.models_dir, settings.feature_repo
    problems = [f"{stray}\n  → {stray.fix}" for stray in (*misnamed_specs(sources), *misnamed_specs(models))]
    broken: set[str] = set()
    for source in source_names(sources):
        try:
            load_source_spec(source, sources)
        except ConfigError as error:
            learn = models_of(source, models)
            broken |= set(learn)
            without = f"\nWithout it these models have no DAGs: {', '.join(learn)}." if learn else ""
            problems.append(f"{error}{without}")
    for model in model_names(models):
        if model not in broken:
            try:
                load_model_spec(model, models, sources)
            except ConfigError as error:
                problems.append(str(error))
                # Of the models of a source that does not exist, the first names it.
                if (named := source_of(model, models)) is not None and named not in source_names(sources):
                    broken |= set(models_of(named, models))
    return problems


def dag_settings(spec: SpecFile, kind: str, title: str, runs: int = 1) -> dict[str, Any]:
    """The arguments that all DAGs share. One run at a time, unless `runs` may: the steps write the same tables."""
    return {
        "dag_id": f"{spec.name}_{kind}",
        "dag_display_name": f"{spec.title}: {title}",
        "description": f"{spec.title}: {title}",
        "default_args": {"owner": spec.owner, **DEFAULT_ARGS},
        "tags": [spec.name, kind],
        "max_active_runs": runs,
        "catchup": False,
    }
