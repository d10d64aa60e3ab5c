"""A step of several nodes: an indexed Job and the Service under which its pods find the first."""

from kubernetes.client import ApiClient
from kubernetes.client import models as k8s
from perennial_airflow import pod_group
from perennial_airflow.pod_spec import step_pod

from tests.plugins.test_pod_spec import ARGV, REMOTE, WHO
from training.contract.resources import Resources
from training.contract.steps import distributed_command


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
