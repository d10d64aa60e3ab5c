"""The addresses that the pages link to: other pages, Airflow's own UI, MLflow, reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request

from perennial_airflow.pages import PREFIX
from training import storage
from training.settings import StateSettings

#: Text and address.
Link = tuple[str, str]


@dataclass(frozen=True)
class Links:
    #: The path at which the pages are mounted.
    base: str
    #: MLflow for people; empty when its address is not one of a server.
    mlflow: str
    #: The work folder.
    work: str

    @classmethod
    def of(cls, request: Request, settings: StateSettings) -> "Links":
        mlflow = (settings.mlflow_url or settings.tracking_uri).rstrip("/")
        mlflow = mlflow if mlflow.startswith(("http://", "https://")) else ""
        return cls(request.scope.get("root_path", PREFIX), mlflow, settings.work)

    def overview(self, **query: Any) -> str:
        return _with(f"{self.base}/", query)

    def model(self, model: str, **query: Any) -> str:
        return _with(f"{self.base}/models/{quote(model, safe='')}", query)

    def run(self, dag_id: str, run_id: str, task_id: str = "") -> str:
        """A DAG run in Airflow's UI, or one of its tasks."""
        ui = self.base.removesuffix(PREFIX)
        task = f"/tasks/{quote(task_id, safe='')}" if task_id else ""
        return f"{ui}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}{task}"

    def evidence(self, model: str, version: int) -> str:
        return f"{self.model(model)}/reports/evidence/{version}/index.html"

    def mlflow_run(self, run_id: str) -> str:
        return f"{self.mlflow}/#/runs/{quote(run_id, safe='')}" if self.mlflow else ""

    def mlflow_version(self, model: str, version: int) -> str:
        return f"{self.mlflow}/#/models/{quote(model, safe='')}/versions/{version}" if self.mlflow else ""

    def report(self, model: str, uri: Any) -> str:
        """A file in the work folder of a model; empty for one that lies elsewhere."""
        path = self._path(uri, storage.join(self.work, model))
        return f"{self.model(model)}/reports/{path}" if path else ""

    def partition(self, source: str, uri: Any) -> str:
        """A page about a partition of a source, as `report`."""
        path = self._path(uri, storage.join(self.work, source, "data_docs"))
        return f"{self.base}/sources/{quote(source, safe='')}/partitions/{path}" if path else ""

    @staticmethod
    def _path(uri: Any, folder: str) -> str:
        root = folder.rstrip("/") + "/"
        return quote(uri.removeprefix(root)) if isinstance(uri, str) and uri.startswith(root) else ""


def _with(url: str, query: Mapping[str, Any]) -> str:
    """`url` with the parameters that have a value."""
    given = {name: value for name, value in query.items() if value}
    return f"{url}?{urlencode(given)}" if given else url


def of_facts(facts: Mapping[str, Any], model: str, source: str, links: Links) -> list[Link]:
    """The links that the facts of a step lead to."""
    challenger = facts.get("challenger") or {}
    run = facts.get("run_id") or (challenger.get("run_id") if isinstance(challenger, Mapping) else None)
    version = facts.get("version")
    found = [
        ("Drift report", links.report(model, facts.get("report_html"))),
        ("Report", links.report(model, facts.get("report"))),
        ("Verdict", links.report(model, str(facts.get("report_uri", "")).replace("report.json", "report.md"))),
        ("Page of the partition", links.partition(source, facts.get("data_docs"))),
        ("MLflow run", links.mlflow_run(run) if isinstance(run, str) else ""),
    ]
    if isinstance(version, int):
        found += [("Evidence", links.evidence(model, version)), ("MLflow", links.mlflow_version(model, version))]
    return [(text, url) for text, url in found if url]
