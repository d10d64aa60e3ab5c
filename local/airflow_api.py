"""A client for the part of Airflow's REST API that the demo needs. It only reads."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from training.contract.errors import TransientError

#: States in which a run or a task stays.
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@dataclass(frozen=True)
class Run:
    """One DAG run. `kind` is the DAG's id without the source or model: data, train, monitor, …"""

    kind: str
    id: str
    state: str
    type: str
    started: datetime | None
    ended: datetime | None
    conf: Mapping[str, Any]

    @property
    def over(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Task:
    """One task instance of a run; `index` is -1 for a task that is not mapped."""

    id: str
    state: str | None
    index: int
    tries: int
    label: str
    #: When the scheduler found that it may run, when it began, and when it ended.
    scheduled: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None


#: The DAGs of a source; the others are a model's.
SOURCE_KINDS = ("landing", "data")


class Airflow:
    """The DAGs of one model and its source. Retries for `patience` seconds while the API server does not answer.

    `pages` is Airflow's URL for browsers; empty: `url`.
    """

    def __init__(
        self, url: str, user: str, password: str, source: str, model: str, patience: float = 120, pages: str = ""
    ) -> None:
        self._client = httpx.Client(base_url=url, timeout=20)
        self._login = {"username": user, "password": password}
        self._source, self._model = source, model
        self._patience = patience
        self._pages = (pages or url).rstrip("/")

    def __enter__(self) -> "Airflow":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def dag(self, kind: str) -> str:
        """The id of the DAG `kind`."""
        return f"{self._source if kind in SOURCE_KINDS else self._model}_{kind}"

    def runs(self, kind: str) -> list[Run]:
        """The newest hundred runs, oldest first. Empty while Airflow does not know the DAG yet."""
        dag = self.dag(kind)
        found = self._get(f"/api/v2/dags/{dag}/dagRuns", order_by="-run_after", limit=100)
        runs = [
            Run(
                kind=kind,
                id=run["dag_run_id"],
                state=run["state"],
                type=run["run_type"],
                started=_time(run["start_date"]),
                ended=_time(run["end_date"]),
                conf=run["conf"] or {},
            )
            for run in (found or {}).get("dag_runs", [])
        ]
        return runs[::-1]

    def tasks(self, run: Run) -> list[Task]:
        found = self._get(f"{self._run_path(run)}/taskInstances", limit=100)
        return [
            Task(
                *(t["task_id"], t["state"], t["map_index"], t["try_number"], t.get("rendered_map_index") or ""),
                *(_time(t.get(name)) for name in ("scheduled_when", "start_date", "end_date")),
            )
            for t in (found or {}).get("task_instances", [])
        ]

    def upstream(self, kind: str) -> dict[str, set[str]]:
        """The tasks of the DAG `kind`, each with the tasks for which it waits."""
        found = (self._get(f"/api/v2/dags/{self.dag(kind)}/tasks") or {}).get("tasks", [])
        return {
            task["task_id"]: {each["task_id"] for each in found if task["task_id"] in each["downstream_task_ids"]}
            for task in found
        }

    def result(self, run: Run, task: str) -> dict[str, Any] | None:
        """The step's result. None when the step did not run, failed, or is not done."""
        path = f"{self._run_path(run)}/taskInstances/{task}/xcomEntries/return_value"
        found = self._get(path)
        value = found["value"] if found else None
        return json.loads(value) if isinstance(value, str) else value

    def causes(self, run: Run) -> list[dict[str, Any]]:
        """The asset events that started the run: name of the asset, extra, and the run and the task that sent it."""
        found = self._get(f"{self._run_path(run)}/upstreamAssetEvents")
        return [
            {
                "asset": event.get("name"),
                "extra": event.get("extra") or {},
                "source": event.get("source_run_id"),
                "task": event.get("source_task_id"),
            }
            for event in (found or {}).get("asset_events", [])
        ]

    def log(self, run: Run, task: Task, lines: int = 12) -> list[str]:
        """The last lines of the task's last try."""
        path = f"{self._run_path(run)}/taskInstances/{task.id}/logs/{max(task.tries, 1)}"
        found = self._get(path, map_index=task.index)
        content = (found or {}).get("content", [])
        entries = [entry if isinstance(entry, str) else str(entry.get("event", "")) for entry in content]
        return "\n".join(entries).splitlines()[-lines:]

    def page(self, run: Run) -> str:
        """The URL of the run's page."""
        return f"{self._pages}/dags/{self.dag(run.kind)}/runs/{quote(run.id)}"

    def _run_path(self, run: Run) -> str:
        return f"/api/v2/dags/{self.dag(run.kind)}/dagRuns/{quote(run.id, safe='')}"

    def _get(self, path: str, **params: Any) -> Any:
        """The JSON answer; None for 404. Raises TransientError when Airflow does not answer in time."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                answer = self._client.get(path, params=params)
                if answer.status_code == 401:
                    self._log_in()
                    answer = self._client.get(path, params=params)
                if answer.status_code == 404:
                    return None
                return answer.raise_for_status().json()
            except httpx.HTTPError as error:
                if time.monotonic() > deadline:
                    raise TransientError(
                        f"Airflow did not answer {path} for {self._patience:.0f} s: {error}",
                        hint="`make status` shows what runs; read the log of airflow-api.",
                    ) from error
                time.sleep(1)

    def _log_in(self) -> None:
        token = self._client.post("/auth/token", json=self._login).raise_for_status().json()["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
