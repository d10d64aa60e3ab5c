"""For which models a DAG file makes DAGs, and the arguments that all DAGs of a model share."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from airflow.sdk import get_parsing_context

from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec, load_model_spec, misnamed_specs, model_names
from training.settings import load_settings

log = logging.getLogger(__name__)

#: A transient failure is tried six times within about two and a half minutes. A server restarts faster than that.
DEFAULT_ARGS: dict[str, Any] = {
    "retries": 5,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=1),
}


def specs(kind: str) -> Iterator[ModelSpec]:
    """The models for which to make `<model>_<kind>`: all, or in a task's process only the task's model.

    A broken spec is left out, so that the other models keep their DAGs. `dags/broken_specs.py` reports it.
    """
    wanted = get_parsing_context().dag_id
    models_dir = load_settings().models_dir
    for name in model_names(models_dir):
        if wanted is None or wanted == f"{name}_{kind}":
            try:
                yield load_model_spec(name, models_dir)
            except ConfigError as error:
                log.warning("No DAG %s_%s: %s", name, kind, error)


def broken_specs() -> list[str]:
    """The mistakes in specs that cannot be loaded, a paragraph each. The check step finds those in SQL and Feast."""
    models_dir = load_settings().models_dir
    problems = [f"{stray}\n  → {stray.fix}" for stray in misnamed_specs(models_dir)]
    for name in model_names(models_dir):
        try:
            load_model_spec(name, models_dir)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def dag_settings(spec: ModelSpec, kind: str, title: str) -> dict[str, Any]:
    """The arguments that all DAGs of a model share. One run at a time, because the steps write the same tables."""
    return {
        "dag_id": f"{spec.name}_{kind}",
        "dag_display_name": f"{spec.title}: {title}",
        "description": f"{spec.title}: {title}",
        "default_args": {"owner": spec.owner, **DEFAULT_ARGS},
        "tags": [spec.name, kind],
        "max_active_runs": 1,
        "catchup": False,
    }
