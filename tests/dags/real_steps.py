"""Runs a DAG of ours in this process, with real steps that the step server forks."""

import sys
from typing import Any

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

from tests.airflow_fixtures import StepServer
from training.settings import ROOT, Settings


def use_settings(
    settings: Settings, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Steps get the fields `names` of `settings`."""
    if sys.platform == "linux":
        server: StepServer = request.getfixturevalue("step_server")
        monkeypatch.setenv("CT_LAUNCHER", "forkserver")
        monkeypatch.setenv("CT_FORKSERVER_SOCKET", str(server.socket))
    for name in names:
        monkeypatch.setenv(f"CT_{name.upper()}", str(getattr(settings, name)))


def run_dag(file: str, dag_id: str, conf: dict[str, Any]) -> Any:
    """The run of the DAG `dag_id` in dags/`file` with these parameters, when it has ended."""
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(ROOT / "dags" / file)
    assert not bag.import_errors
    sync_bag_to_db(bag, "dags-folder", None)
    return bag.dags[dag_id].test(run_conf=conf)
