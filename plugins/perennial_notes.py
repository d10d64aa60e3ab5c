"""Writes the reason of each run into its note, which the grid view shows."""

from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

#: The longest note that Airflow takes, in characters.
LONGEST = 1000


def reason(conf: Any, extras: list[dict[str, Any]]) -> str:
    """The reason that a person gave, or the reasons in the asset events that started the run."""
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
