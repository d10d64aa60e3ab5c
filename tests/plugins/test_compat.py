"""The private parts of Airflow and its provider that perennial_airflow/compat uses are where it expects them."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, Param, XComArg, listener, plugins_manager
from perennial_airflow.compat import airflow_sdk
from perennial_airflow.compat.airflow_sdk import DagParam, ResolveMixin, dag_param_name, load_task_plugins

#: As plugins/perennial_preload.py, it loads the plugins while Airflow loads it.
PLUGIN = """
from pathlib import Path

from airflow.plugins_manager import AirflowPlugin
from perennial_airflow.compat.airflow_sdk import load_task_plugins

with Path(__file__).with_suffix(".ran").open("a") as file:
    file.write("once")
load_task_plugins()


class OwnPlugin(AirflowPlugin):
    name = "own_plugin"
"""


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_airflow_resolves_inputs_that_are_resolve_mixins() -> None:
    assert issubclass(XComArg, ResolveMixin)
    assert parameters(ResolveMixin.resolve) == ["self", "context"]
    assert parameters(ResolveMixin.iter_references) == ["self"]


def test_a_dag_param_knows_its_name() -> None:
    with DAG("a_dag", schedule=None, params={"reason": Param("x")}) as dag:
        param = dag.param("reason")
    assert isinstance(param, DagParam)
    assert dag_param_name(param) == "reason"


def test_a_task_can_ask_its_supervisor_for_a_run() -> None:
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun

    assert {"dag_id", "run_id", "conf", "note", "run_after"} <= set(TriggerDagRun.model_fields)
    assert {"error", "detail"} <= set(ErrorResponse.model_fields)
    # Set by the supervisor when a task starts.
    assert "SUPERVISOR_COMMS" in task_runner.__annotations__


def test_the_provider_reads_logs_in_the_method_that_we_replace() -> None:
    from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
    from airflow.providers.cncf.kubernetes.utils.pod_manager import AsyncPodManager

    read = AsyncPodManager.fetch_container_logs_before_current_sec
    assert parameters(read) == ["self", "pod", "container_name", "since_time"]
    hook = SimpleNamespace()
    assert AsyncPodManager(async_hook=hook)._hook is hook
    assert "self.pod_manager.fetch_container_logs_before_current_sec(" in inspect.getsource(KubernetesPodTrigger)


def test_the_provider_defers_a_pod_task_the_way_we_build_on() -> None:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    defer = inspect.getsource(KubernetesPodOperator.invoke_defer_method)
    assert parameters(KubernetesPodOperator.invoke_defer_method) == ["self", "last_log_time", "context"]
    for used in ("self.convert_config_file_to_dict()", "config_dict=self._config_dict", "self.trigger_kwargs"):
        assert used in defer
    assert 'event.get("_redefer_count", 0)' in inspect.getsource(KubernetesPodOperator.trigger_reentry)


def test_airflows_own_processes_send_gauges_with_tags() -> None:
    from perennial_airflow.compat.airflow_stats import server_stats

    assert {"stat", "value", "tags"} <= set(parameters(server_stats.gauge))
    # The scheduler sets these stats up, and not those of the task SDK.
    from airflow.jobs import scheduler_job_runner

    assert scheduler_job_runner.stats is server_stats


@pytest.fixture
def own_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of plugins that no process has loaded."""
    monkeypatch.setattr(plugins_manager.settings, "PLUGINS_FOLDER", str(tmp_path))
    monkeypatch.setattr(airflow_sdk, "_loading", False)
    kept = (plugins_manager._get_plugins, plugins_manager.integrate_macros_plugins, listener.get_listener_manager)
    for cached in kept:
        cached.cache_clear()
    yield tmp_path
    for cached in kept:
        cached.cache_clear()


def test_the_plugins_of_tasks_are_loaded_once_though_one_of_them_loads_them(own_plugins: Path) -> None:
    (own_plugins / "own.py").write_text(PLUGIN)
    load_task_plugins()
    loaded, errors = plugins_manager._get_plugins()
    assert "own_plugin" in {plugin.name for plugin in loaded}
    assert str(own_plugins / "own.py") not in errors
    # What a task asks for has been made.
    assert listener.get_listener_manager.cache_info().currsize == 1
    assert plugins_manager.integrate_macros_plugins.cache_info().currsize == 1
    load_task_plugins()
    assert (own_plugins / "own.ran").read_text() == "once"
