"""Called by tasks when their step has ended: writes the event that the pages show."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from perennial_airflow.life.facts import LONGEST, facts
from perennial_airflow.life.store import record
from training.contract.life import Event
from training.contract.model_spec import load_model_spec
from training.settings import StateSettings, load_settings

log = logging.getLogger(__name__)


def step_ended(
    step: str, inputs: Mapping[str, Any], context: Any, result: Mapping[str, Any] | None = None, error: str = ""
) -> None:
    """Write the event of a step that has succeeded with `result`, or failed with `error`. `context`: of its task.

    The pages are a view, so an event that cannot be stored is a warning, not a failure of the task.
    """
    try:
        settings, now, ti = load_settings(), datetime.now(UTC), context["ti"]
        began = getattr(ti, "start_date", None)
        event = Event(
            at=now,
            step=step,
            status="failed" if result is None else "succeeded",
            seconds=round((now - began).total_seconds(), 1) if began else None,
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            attempt=ti.try_number,
            facts=facts(step, inputs, result or {}),
            error=error.removeprefix(f"{step}: ")[: 2 * LONGEST],
        )
        if model := inputs.get("model"):
            record(event, "models", str(model), _about(str(model), settings), settings)
        elif source := inputs.get("source"):
            record(event, "sources", str(source), {}, settings)
    except Exception as problem:  # Whatever it is: the step has ended, and its result must not be lost.
        log.warning("The pages about models will not show this task: %s: %s", type(problem).__name__, problem)


def _about(model: str, settings: StateSettings) -> dict[str, str]:
    """What the summary of a model says of its spec."""
    spec = load_model_spec(model, settings.models_dir, settings.feature_repo)
    names = {"title": spec.title, "owner": spec.owner, "source": spec.source.name}
    return {**names, "primary": spec.evaluation.primary}
