"""Writes on each run why it is there, where the grid shows it: the run's note."""

from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

#: As long as Airflow's notes may be.
LONGEST = 1000


def reason(conf: Any, extras: list[dict[str, Any]]) -> str:
    """What a person gave as the reason, or what the asset events that started the run carry as theirs."""
    given = [(conf or {}).get("reason")]
    given += [extra.get("reason") or (extra.get("payload") or {}).get("reason") for extra in extras]
    return "; ".join(dict.fromkeys(text for text in given if text))[:LONGEST]


class Notes:
    """Called in the scheduler, inside the transaction that starts the run."""

    @hookimpl
    def on_dag_run_running(self, dag_run: Any, msg: str) -> None:
        if not dag_run.note:
            text = reason(dag_run.conf, [event.extra or {} for event in dag_run.consumed_asset_events])
            dag_run.note = text or None


class NotesPlugin(AirflowPlugin):
    name = "perennial_notes"
    listeners = [Notes()]
