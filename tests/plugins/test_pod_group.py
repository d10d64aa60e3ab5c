"""A step of several nodes: an indexed Job and the Service under which its pods find the first."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s
from perennial_airflow import pod_group
from perennial_airflow.pod_spec import step_pod

from tests.plugins.fake_kubernetes import Cluster
from tests.plugins.test_pod_spec import ARGV, REMOTE, WHO
from tests.plugins.test_pods import RESULT, Task, cluster, succeeds, unseen
from training.contract.model_spec import MODELS_DIR
from training.contract.resources import Resources
from training.contract.steps import distributed_command

__all__ = ["cluster"]


def test_the_pods_find_the_first_by_the_name_that_the_command_says() -> None:
    import kubernetes_validate

    where = pod_group.rendezvous(WHO)
    argv = distributed_command(
        "train", {"model": "card_fraud"}, "s3://b/3.json", nodes=3, processes=2, rendezvous=where
    )
    pod = step_pod(WHO, argv, {}, Resources(nodes=3, gpus=2), 3600, REMOTE)
    pod.metadata.namespace = "ml"
    job = pod_group.job(pod, 3, 4000, 60)
    owner = k8s.V1OwnerReference(api_version="batch/v1", kind="Job", name=WHO.name, uid="1")
    manifests = [ApiClient().sanitize_for_serialization(m) for m in (job, pod_group.service(job, owner))]
    for manifest in manifests:
        for version in ("1.32", "1.33", "1.34"):
            kubernetes_validate.validate(manifest, version, strict=True)
    made, service = manifests
    assert made["spec"]["completionMode"] == "Indexed"
    assert made["spec"]["completions"] == made["spec"]["parallelism"] == 3
    assert (made["spec"]["backoffLimit"], made["spec"]["activeDeadlineSeconds"]) == (0, 4000)
    template = made["spec"]["template"]
    assert template["spec"]["subdomain"] == service["metadata"]["name"] == WHO.name
    assert where == f"{made['metadata']['name']}-0.{service['metadata']['name']}:29400"
    assert template["spec"]["containers"][0]["args"] == argv != ARGV
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": made["metadata"]["name"]}
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "step"


class GroupTask(Task):
    def resume(self, event: dict[str, Any]) -> Any:
        self.operator = self._operator()
        return self.operator.group_reentry(self.context, event)

    def event(self, trigger: Any) -> dict[str, Any]:
        again = type(trigger)(**trigger.serialize()[1])
        again.poll_interval = 0.1
        return super().event(again)


@pytest.fixture
def two_nodes(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, and a model whose step takes two pods."""
    spec = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
    spec["resources"] = {"steps": {"register": {"nodes": 2, "gpus": 1}}}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "card_fraud.yaml").write_text(yaml.safe_dump(spec))
    monkeypatch.setenv("CT_MODELS_DIR", str(tmp_path / "models"))
    return cluster


def complete(cluster: Cluster, name: str) -> None:
    """The Job is over: its first pod has left a report."""
    job = cluster.jobs[name]
    labels = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/job-completion-index": "0"}
    meta = {**job["metadata"], "name": f"{name}-0-abcde", "labels": {**job["metadata"]["labels"], **labels}}
    cluster.ends = succeeds
    cluster.create({**job["spec"]["template"], "metadata": meta})
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}


def test_a_group_is_watched_by_the_service_account_and_its_result_is_the_first_pods(two_nodes: Cluster) -> None:
    task = GroupTask()
    trigger = task.start()
    complete(two_nodes, task.pod)
    event = task.event(trigger)
    assert event["status"] == "success", event
    assert task.resume(event) == RESULT
    assert two_nodes.deleted == [task.pod]


def test_a_group_that_cannot_be_watched_is_left_running_and_the_retry_goes_on_with_it(two_nodes: Cluster) -> None:
    first = GroupTask()
    trigger = first.start()
    for _ in range(3):
        trigger = first.deferred_again(unseen(two_nodes, first, trigger))
    last = unseen(two_nodes, first, trigger)
    with pytest.raises(AirflowException, match="is left running") as raised:
        first.resume(last)
    assert "is forbidden" in str(raised.value)
    assert not isinstance(raised.value, AirflowFailException)
    assert two_nodes.deleted == []

    second = GroupTask(attempt=2)
    trigger = second.start()
    assert trigger.job_name == first.pod
    complete(two_nodes, first.pod)
    assert second.resume(second.event(trigger)) == RESULT
    assert list(two_nodes.jobs) == []


def test_a_retry_that_has_other_work_ends_the_group_of_the_earlier_try(
    two_nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = GroupTask(), GroupTask(attempt=2)
    first.start()
    monkeypatch.setenv("CT_IMAGE", "training:2")
    assert second.start().job_name == second.pod
    assert two_nodes.deleted == [first.pod]
