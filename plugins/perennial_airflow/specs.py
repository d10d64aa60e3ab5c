"""From model specs to DAGs: which models a DAG file makes DAGs for, and what all of a model's DAGs have in common."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from airflow.sdk import get_parsing_context

from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec, load_model_spec, misnamed_specs, model_names
from training.settings import load_settings

log = logging.getLogger(__name__)

#: Transient failures are tried six times over about two and a half minutes: longer than a restart of any server.
DEFAULT_ARGS: dict[str, Any] = {
    "retries": 5,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=1),
}


def specs(kind: str) -> Iterator[ModelSpec]:
    """The models to make `<model>_<kind>` for: all of them, or the one that a task is about to run.

    A broken spec is left out here, so that it costs no other model its DAGs; `dags/broken_specs.py` reports it.
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
    """What is wrong with the specs that cannot be loaded, a paragraph each. SQL and Feast are the check step's."""
    models_dir = load_settings().models_dir
    problems = [f"{stray}\n  → {stray.fix}" for stray in misnamed_specs(models_dir)]
    for name in model_names(models_dir):
        try:
            load_model_spec(name, models_dir)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def dag_settings(spec: ModelSpec, kind: str, title: str) -> dict[str, Any]:
    """The arguments that every DAG of a model has in common. One run at a time: the steps write the same tables."""
    return {
        "dag_id": f"{spec.name}_{kind}",
        "dag_display_name": f"{spec.title}: {title}",
        "description": f"{spec.title}: {title}",
        "default_args": {"owner": spec.owner, **DEFAULT_ARGS},
        "tags": [spec.name, kind],
        "max_active_runs": 1,
        "catchup": False,
    }
