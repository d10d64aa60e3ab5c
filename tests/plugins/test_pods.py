"""Steps as pods, through the provider's own client and trigger, against a server that speaks Kubernetes' API."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from kubernetes.client import Configuration
from perennial_airflow.pod_spec import Identity

from tests.cases import others_in_ci
from tests.plugins.fake_kubernetes import Cluster, Manifest, ended, waiting

MODEL = {"model": "card_fraud"}
RESULT = {"version": 3, "digest": "abc"}


def report(pod: Manifest, **fields: Any) -> None:
    """What the step in `pod` leaves where its command says."""
    args = pod["spec"]["containers"][0]["args"]
    path = Path(args[args.index("--result") + 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"step": "register", **fields}))


def succeeds(pod: Manifest) -> Manifest:
    report(pod, status="succeeded", result=RESULT)
    return ended(0)


def fails(code: int) -> Any:
    def end(pod: Manifest) -> Manifest:
        error = {"type": "StepError", "message": "what went wrong", "retryable": code == 75, "hint": "what to do"}
        report(pod, status="failed", error=error)
        return ended(code, "Error")

    return end


@pytest.fixture
def cluster(tmp_path: Path, step_settings: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """As Airflow's pods see it: a service account is mounted, and nobody has set a connection or a kube config."""
    cluster = Cluster(succeeds, tmp_path / "serviceaccount")
    cluster.mount_service_account(monkeypatch)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", raising=False)
    monkeypatch.setenv("CT_POD_NAMESPACE", "ml")
    monkeypatch.setenv("CT_IMAGE", "training")
    monkeypatch.setenv("CT_POD_VOLUME_CLAIM", "state")
    yield cluster
    cluster.close()
    Configuration.set_default(None)


class Task:
    """One task instance's tries, as Airflow would run them."""

    def __init__(self, attempt: int = 1, run: str = "a-run") -> None:
        self.ti = SimpleNamespace(
            dag_id="d", run_id=run, task_id="register", map_index=-1, try_number=attempt, start_date=datetime.now(UTC)
        )
        self.ti.max_tries = 5
        self.ti.xcom_push = lambda **kwargs: None
        self.context = {"ti": self.ti, "run_id": run, "dag": SimpleNamespace()}
        self.operator = self._operator()

    def _operator(self) -> Any:
        from perennial_airflow.launchers.pod import PodStepOperator

        operator = PodStepOperator(task_id="register", step="register", inputs=MODEL)
        # The clients' pace in a test.
        operator.poll_interval = operator.startup_check_interval_seconds = 0.1
        return operator

    @property
    def pod(self) -> str:
        return Identity.of(self.ti, "card_fraud", "register").name

    def start(self) -> Any:
        """What the task comes to in its first process: a result, or the trigger that it waits with."""
        try:
            return self.operator.execute(self.context)
        except TaskDeferred as deferred:
            return deferred.trigger

    def resume(self, event: dict[str, Any]) -> Any:
        """In another process, as after any deferral."""
        self.operator = self._operator()
        return self.operator.trigger_reentry(self.context, event)

    def deferred_again(self, event: dict[str, Any]) -> Any:
        """The trigger that the task waits with again after `event`."""
        with pytest.raises(TaskDeferred) as deferred:
            self.resume(event)
        return deferred.value.trigger

    def event(self, trigger: Any) -> dict[str, Any]:
        async def first() -> Any:
            async for event in trigger.run():
                return event.payload

        return asyncio.run(asyncio.wait_for(first(), 120))

    def run(self) -> Any:
        came = self.start()
        return came if isinstance(came, dict) else self.resume(self.event(came))


def test_success_is_a_verified_report_and_its_pod_is_deleted(cluster: Cluster) -> None:
    task = Task()
    assert task.run() == RESULT
    assert [pod["metadata"]["name"] for pod in cluster.created] == [task.pod]
    assert cluster.deleted == [task.pod]


@pytest.mark.parametrize(
    ("end", "retried", "message"),
    others_in_ci(
        [
            (fails(65), False, "what went wrong\n  → what to do"),
            (fails(75), True, "what went wrong"),
            (lambda pod: ended(0), True, "left no readable report"),
            (lambda pod: ended(137, "OOMKilled"), True, "more memory than its limit"),
            (lambda pod: {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, True, "lost its node"),
            (lambda pod: {"phase": "Failed", "reason": "DeadlineExceeded"}, True, "ran longer than its time limit"),
            (
                lambda pod: ended(
                    143,
                    "Error",
                    conditions=[
                        {
                            "type": "DisruptionTarget",
                            "status": "True",
                            "reason": "PreemptionByScheduler",
                            "message": "preempting to accommodate a higher priority pod",
                        }
                    ],
                ),
                True,
                "PreemptionByScheduler",
            ),
            (lambda pod: ended(137, "Error"), True, "SIGKILL"),
            (fails(64), False, "what went wrong"),
            (fails(78), False, "what went wrong"),
            (fails(70), True, "what went wrong"),
        ],
        first=5,
    ),
)
def test_an_end_says_what_it_was_and_whether_another_try_can_help(
    cluster: Cluster, end: Any, retried: bool, message: str
) -> None:
    cluster.ends = end
    task = Task()
    with pytest.raises(AirflowException, match=message) as raised:
        task.run()
    assert isinstance(raised.value, AirflowFailException) is not retried
    assert cluster.deleted == [], "a failed pod stays, to be looked at"


@pytest.mark.parametrize("end", others_in_ci([fails(70), lambda pod: ended(0), lambda pod: ended(137, "OOMKilled")]))
def test_what_may_be_a_bug_is_tried_once_more_and_not_again(cluster: Cluster, end: Any) -> None:
    cluster.ends = end
    with pytest.raises(AirflowFailException):
        Task(attempt=2).run()


def test_a_lost_node_is_no_end_of_the_tries(cluster: Cluster) -> None:
    cluster.ends = lambda pod: {"phase": "Failed", "reason": "Evicted"}
    with pytest.raises(AirflowException) as raised:
        Task(attempt=4).run()
    assert not isinstance(raised.value, AirflowFailException)


def watched(cluster: Cluster) -> Any:
    """The result of a task that waits for its pod in a triggerer, and that the triggerer has told of the pod's end."""
    cluster.ends = lambda pod: None
    task = Task()
    trigger = task.start()
    path, kwargs = trigger.serialize()
    assert path == "perennial_airflow.pod_trigger.StepPodTrigger"
    json.dumps(kwargs, default=str)
    cluster.pods[task.pod]["status"] = succeeds(cluster.pods[task.pod])
    event = task.event(type(trigger)(**kwargs))
    assert event["status"] == "success", event
    return task.resume(event)


def test_the_task_waits_in_the_triggerer_and_another_process_ends_it(cluster: Cluster) -> None:
    assert watched(cluster) == RESULT


def test_a_worker_that_takes_a_try_up_again_finds_its_pod_and_makes_no_other(cluster: Cluster) -> None:
    cluster.ends = lambda pod: None
    Task().start()
    other = Task(run="another-run")
    other.start()
    again = Task()
    trigger = again.start()
    assert trigger.pod_name == again.pod != other.pod
    assert len(cluster.created) == 2
    cluster.pods[again.pod]["status"] = succeeds(cluster.pods[again.pod])
    assert again.run() == RESULT
    assert other.pod in cluster.pods


def test_a_retry_goes_on_with_the_pod_that_an_earlier_try_left_running(cluster: Cluster) -> None:
    cluster.ends = lambda pod: None
    first, second = Task(), Task(attempt=2)
    first.start()
    trigger = second.start()
    assert trigger.pod_name == first.pod
    cluster.pods[first.pod]["status"] = succeeds(cluster.pods[first.pod])
    assert second.resume(second.event(trigger)) == RESULT
    assert len(cluster.created) == 1


@pytest.mark.parametrize(
    ("change", "value"), others_in_ci([("inputs", {**MODEL, "version": 3}), ("CT_IMAGE", "training:2")])
)
def test_a_retry_that_has_other_work_ends_the_pod_of_the_earlier_try(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, change: str, value: Any
) -> None:
    cluster.ends = lambda pod: None
    first = Task()
    first.start()
    cluster.ends = succeeds
    second = Task(attempt=2)
    if change == "inputs":
        second.operator.inputs = value
    else:
        monkeypatch.setenv(change, value)
    assert second.run() == RESULT
    assert cluster.deleted[0] == first.pod
    assert len(cluster.created) == 2


def test_a_pod_that_ended_between_two_tries_is_used_if_it_succeeded(cluster: Cluster) -> None:
    cluster.ends = lambda pod: None
    first, second = Task(), Task(attempt=2)
    first.start()
    cluster.pods[first.pod]["status"] = succeeds(cluster.pods[first.pod])
    assert second.run() == RESULT
    assert len(cluster.created) == 1
    assert cluster.deleted == [first.pod]


def test_a_pod_that_failed_between_two_tries_is_not_used(cluster: Cluster) -> None:
    cluster.ends = lambda pod: None
    first, second = Task(), Task(attempt=2)
    first.start()
    cluster.pods[first.pod]["status"] = fails(75)(cluster.pods[first.pod])
    cluster.ends = succeeds
    assert second.run() == RESULT
    assert len(cluster.created) == 2


def test_a_retry_would_rather_have_another_node(cluster: Cluster) -> None:
    cluster.ends = lambda pod: {"phase": "Failed", "reason": "Evicted"}
    with pytest.raises(AirflowException, match="lost its node"):
        Task().run()
    assert cluster.created[0]["spec"].get("affinity") is None
    cluster.pods[Task().pod]["spec"]["nodeName"] = "full-node"
    cluster.ends = succeeds
    assert Task(attempt=2).run() == RESULT
    (term,) = cluster.created[1]["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["preference"]["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": ["full-node"]}]


def test_a_pod_that_is_gone_has_succeeded_only_if_its_report_says_so(cluster: Cluster) -> None:
    cluster.ends = lambda pod: None
    task = Task()
    task.start()
    pod = cluster.pods.pop(task.pod)
    lost = {"name": task.pod, "namespace": "ml", "message": "404"}
    for status in ("error", "success"):
        with pytest.raises(AirflowException, match="is gone") as raised:
            task.resume({"status": status, **lost})
        assert not isinstance(raised.value, AirflowFailException)
    succeeds(pod)
    assert task.resume({"status": "error", **lost}) == RESULT


def unseen(cluster: Cluster, task: Task, trigger: Any) -> dict[str, Any]:
    """The event of a trigger that may not look, while the task may."""
    cluster.hides = (403, "pods is forbidden")
    event = task.event(trigger)
    cluster.hides = None
    return event


def test_a_pod_that_cannot_be_watched_is_left_running_and_the_retry_goes_on_with_it(cluster: Cluster) -> None:
    cluster.ends = lambda pod: None
    first = Task()
    trigger = first.start()
    for _ in range(3):
        trigger = first.deferred_again(unseen(cluster, first, trigger))
    last = unseen(cluster, first, trigger)
    with pytest.raises(AirflowException, match="is left running") as raised:
        first.resume(last)
    assert "is forbidden" in str(raised.value)
    assert not isinstance(raised.value, AirflowFailException)
    assert cluster.deleted == []

    second = Task(attempt=2)
    trigger = second.start()
    cluster.pods[first.pod]["status"] = succeeds(cluster.pods[first.pod])
    assert second.resume(second.event(trigger)) == RESULT
    assert len(cluster.created) == 1


def test_a_cluster_that_the_task_cannot_ask_is_no_news_of_the_pod_either(cluster: Cluster) -> None:
    cluster.ends = lambda pod: None
    task = Task()
    task.start()
    cluster.hides = (403, "pods is forbidden")
    with pytest.raises(AirflowException, match="could not be watched") as raised:
        task.resume({"status": "success", "name": task.pod, "namespace": "ml", "message": ""})
    assert not isinstance(raised.value, AirflowFailException)
    cluster.hides = None
    assert Task(attempt=2).start().pod_name == task.pod
    assert cluster.deleted == []


def connection(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    monkeypatch.setenv("CT_POD_CONNECTION", "cluster")


def without_service_account(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster.folder / "token").unlink()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")


def test_outside_of_the_cluster_the_kube_config_is_used(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_service_account(cluster, monkeypatch)
    config = str(cluster.kubeconfig(tmp_path / "kubeconfig"))
    # Both clients read KUBECONFIG once, when they are imported.
    for package in ("kubernetes.config", "kubernetes_asyncio.config"):
        monkeypatch.setattr(f"{package}.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", config)
    monkeypatch.setenv("KUBECONFIG", config)
    assert watched(cluster) == RESULT


@pytest.mark.parametrize(
    "where", others_in_ci(["kube_config_path", "kube_config", "extra__kubernetes__kube_config_path"])
)
def test_a_connection_that_is_named_says_which_cluster(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    config = cluster.kubeconfig(tmp_path / "kubeconfig")
    connection(monkeypatch, **{where: config.read_text() if where == "kube_config" else str(config)})
    # Not the cluster that Airflow itself runs in.
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    assert watched(cluster) == RESULT


@pytest.mark.parametrize("extra", others_in_ci([{"in_cluster": False}, {}, {"namespace": "ml"}, {"in_cluster": True}]))
def test_a_connection_that_says_nothing_else_means_the_service_account(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]
) -> None:
    connection(monkeypatch, **extra)
    monkeypatch.setenv("KUBECONFIG", "/of/somebody/else")
    assert watched(cluster) == RESULT


@pytest.mark.parametrize(
    ("status", "retried", "message"),
    others_in_ci(
        [
            (waiting("ImagePullBackOff", "no such image"), True, "has no image"),
            (waiting("CreateContainerConfigError", "secret not found"), False, "secret not found"),
            (
                {
                    "phase": "Pending",
                    "conditions": [
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                    ],
                },
                True,
                "got no node: Unschedulable: 0/3 nodes",
            ),
        ]
    ),
)
def test_a_pod_that_does_not_start_says_why_and_is_deleted(
    cluster: Cluster, status: Manifest, retried: bool, message: str
) -> None:
    cluster.ends = lambda pod: status
    task = Task()
    task.start()
    with pytest.raises(AirflowException, match=message) as raised:
        task.resume({"status": "timeout", "name": task.pod, "namespace": "ml", "message": "too long"})
    assert isinstance(raised.value, AirflowFailException) is not retried
    assert cluster.deleted == [task.pod]


@pytest.mark.parametrize(("status", "retried"), [(403, True), (422, False)])
def test_a_pod_that_the_cluster_does_not_take(cluster: Cluster, status: int, retried: bool) -> None:
    cluster.refuses = (status, "violates a rule")
    with pytest.raises(AirflowException, match="violates a rule") as raised:
        Task().run()
    assert isinstance(raised.value, AirflowFailException) is not retried


FULL = (403, 'pods "p" is forbidden: exceeded quota: steps, requested: pods=1, used: pods=10, limited: pods=10')


def test_a_full_quota_is_waited_for_and_uses_no_try(cluster: Cluster) -> None:
    cluster.refuses = FULL
    task = Task()
    with pytest.raises(TaskDeferred) as deferred:
        task.operator.execute(task.context)
    waits = deferred.value.kwargs
    for _ in range(3):
        json.dumps(waits)
        task.operator = task._operator()
        with pytest.raises(TaskDeferred) as again:
            task.operator.quota_reentry(task.context, None, **waits)
        assert (again.value.method_name, again.value.kwargs) == ("quota_reentry", waits)
    assert cluster.created == []
    cluster.refuses = None
    task.operator = task._operator()
    assert task.operator.quota_reentry(task.context, None, **waits) == RESULT
    assert [pod["metadata"]["name"] for pod in cluster.created] == [task.pod]
    assert task.ti.try_number == 1


def test_a_quota_that_stays_full_for_the_schedule_timeout_ends_the_try(cluster: Cluster) -> None:
    cluster.refuses = FULL
    task = Task()
    waited = {"waiting_since": (datetime.now(UTC) - timedelta(seconds=1795)).isoformat()}
    with pytest.raises(TaskDeferred) as deferred:
        task.operator.quota_reentry(task.context, None, **waited)
    assert deferred.value.trigger.moment - datetime.now(UTC) < timedelta(seconds=6), "1800 s is the model spec's limit"
    assert deferred.value.kwargs == waited
    waited = {"waiting_since": (datetime.now(UTC) - timedelta(seconds=1801)).isoformat()}
    with pytest.raises(AirflowException, match="exceeded quota") as raised:
        task.operator.quota_reentry(task.context, None, **waited)
    assert not isinstance(raised.value, AirflowFailException)


def test_a_killed_task_takes_its_pod_with_it(cluster: Cluster) -> None:
    cluster.ends = lambda pod: None
    task = Task()
    trigger = task.start()
    task.operator.on_kill()
    assert cluster.deleted == [task.pod]
    waiting_one = Task(run="deferred")
    trigger = waiting_one.start()
    asyncio.run(trigger.on_kill())
    assert cluster.deleted == [task.pod, waiting_one.pod]


def test_pods_that_failed_long_ago_are_swept_away_by_the_next_step(cluster: Cluster) -> None:
    cluster.ends = fails(75)
    old, new = Task(run="old"), Task(run="new")
    for task in (old, new):
        with pytest.raises(AirflowException):
            task.run()
    (container,) = cluster.pods[old.pod]["status"]["containerStatuses"]
    container["state"]["terminated"]["finishedAt"] = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    cluster.ends = succeeds
    Task(run="next").run()
    assert old.pod not in cluster.pods
    assert new.pod in cluster.pods


def test_every_line_of_the_log_is_copied_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("perennial_airflow.pod_trigger.log_line", lambda line, log: lines.append(line.rstrip()))
    cluster.ends = lambda pod: None
    task = Task()
    trigger = task.start()
    now = datetime.now(UTC).replace(microsecond=0)
    # Two come while the triggerer reads.
    cluster.logs[task.pod] = [(now + timedelta(seconds=at), f"line {at}") for at in (-30, -29.5, -10, 5, 5.5)]
    copied = None
    for _ in range(2):
        manager = type(trigger)(**trigger.serialize()[1]).pod_manager
        copied = asyncio.run(manager.fetch_container_logs_before_current_sec(cluster_pod(task), "step", copied))
    assert lines == ["line -30", "line -29.5", "line -10"]
    cluster.pods[task.pod]["status"] = succeeds(cluster.pods[task.pod])
    task.resume({"status": "success", "name": task.pod, "namespace": "ml", "last_log_time": copied})
    assert lines == ["line -30", "line -29.5", "line -10", "line 5", "line 5.5"]


def cluster_pod(task: Task) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(name=task.pod, namespace="ml"))
