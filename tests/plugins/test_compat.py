"""The private parts of Airflow and its provider that perennial_airflow/compat uses are where it expects them."""

import inspect
from types import SimpleNamespace

from airflow.sdk import DAG, Param, XComArg
from perennial_airflow.compat.airflow_sdk import DagParam, ResolveMixin, dag_param_name


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
