"""Over several nodes: serving gets replicas under load and loses them after it; one training runs on two nodes.

It needs metrics-server, a storage class that offers ReadWriteMany (PERENNIAL_TEST_SHARED_CLASS) and two nodes.
"""

import json
import logging
from typing import Any

import pytest

from tests.kubernetes.cluster import DATA, SERVING, Namespace, requests_for, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(3600)]

#: The newest dataset that a training run made, by the report of its step.
NEWEST_DATASET = """
import glob, json, os
reports = glob.glob("/var/lib/perennial/work/results/card_fraud_train/**/*.json", recursive=True)
found = [json.load(open(path)) for path in sorted(reports, key=os.path.getmtime)]
made = [each["result"] for each in found if each["status"] == "succeeded" and "dataset_id" in each["result"]]
print(json.dumps({"dataset_uri": made[-1]["uri"]}))
"""


@pytest.fixture(scope="module")
def serving(spread: Namespace) -> Namespace:
    """The release with a champion, trained by its own loop."""
    landing = spread.run(spread.training_pod("landing", DATA))
    wait_for("landed data", lambda: spread.phase(landing) == "Succeeded", 600)
    wait_for("champion", lambda: spread.ready(SERVING), 2700)
    return spread


def _scaler(space: Namespace) -> Any:
    return space.scaling.read_namespaced_horizontal_pod_autoscaler("perennial-serving", space.name)


def test_load_adds_replicas_and_its_end_takes_them_away_without_a_failed_request(serving: Namespace) -> None:
    # Otherwise metrics-server is not there, or the pods request no CPU.
    wait_for("CPU of the replicas", lambda: _scaler(serving).status.current_metrics, 300)
    load = serving.run(serving.training_pod("load", ["-c", requests_for(300, 16, 0.001)], state=False))
    wait_for("second replica that answers", lambda: len(serving.ready(SERVING)) >= 2, 300)
    # One caller goes on while replicas go, each with the requests that it still has.
    steady = serving.run(serving.training_pod("steady", ["-c", requests_for(600)], state=False))
    wait_for("end of the load", lambda: serving.phase(load) == "Succeeded", 600)
    wait_for("fewer replicas", lambda: _scaler(serving).status.desired_replicas == 1, 900)
    wait_for("one replica", lambda: len(serving.pods(SERVING)) == 1, 300)
    wait_for("end of the caller", lambda: serving.phase(steady) == "Succeeded", 900)
    for client in (load, steady):
        told = json.loads(serving.log(client).strip().splitlines()[-1])
        assert told["failed"] == []
        assert told["answered"] > 100


def _train_on_two_nodes(space: Namespace, run: str, seed: int) -> tuple[Any, str]:
    """Start the train step as Airflow does for a spec with `nodes: 2`. Returns its Job, and the path of its report.

    With another `seed` it is another fit, and none that has been done already.
    """
    from perennial_airflow import pod_group
    from perennial_airflow.pod_spec import Identity, step_pod

    from training.contract.resources import Resources
    from training.contract.steps import distributed_command
    from training.settings import PREFIX, LauncherSettings

    given = {name.removeprefix(PREFIX).lower(): value for name, value in space.settings().items()}
    settings = LauncherSettings(**{name: given[name] for name in LauncherSettings.model_fields.keys() & given.keys()})
    inputs = {"model": "card_fraud", "estimator": "mlp", "seed": seed, "reason": "A test of two nodes"}
    inputs |= space.answer(f"dataset-{run}", NEWEST_DATASET)
    identity = Identity("card_fraud_train", run, "train", 0, 1, "card_fraud", "train")
    where = f"{settings.results}/{run}.json"
    rendezvous = pod_group.rendezvous(identity)
    command = distributed_command("train", inputs, where, nodes=2, processes=1, rendezvous=rendezvous)
    pod = step_pod(identity, command, {}, Resources(nodes=2, cpu="500m", memory="2Gi"), 1800, settings)
    pod.metadata.namespace = space.name
    job = pod_group.job(pod, 2, 1800, 3600)
    # The scheduler may put both on one node; the test wants two.
    apart = {"labelSelector": {"matchLabels": {"batch.kubernetes.io/job-name": identity.name}}}
    apart["topologyKey"] = "kubernetes.io/hostname"
    job.spec.template.spec.affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    pod_group.start(space.core, space.batch, job, lambda found, over: False, logging.getLogger(__name__))
    return job, where


def _pods(space: Namespace, job: Any) -> list[Any]:
    return space.pods(f"batch.kubernetes.io/job-name={job.metadata.name}")


def _ended(space: Namespace, job: Any, how: str) -> bool:
    conditions = space.batch.read_namespaced_job(job.metadata.name, space.name).status.conditions or []
    return any(each.type == how and each.status == "True" for each in conditions)


@pytest.fixture
def two_nodes(serving: Namespace) -> Namespace:
    if serving.nodes() < 2:
        pytest.skip("the cluster has one node that takes pods")
    return serving


def test_one_training_runs_in_pods_of_two_nodes_and_leaves_one_report(two_nodes: Namespace) -> None:
    job, report = _train_on_two_nodes(two_nodes, "together", 101)
    wait_for("end of the Job", lambda: _ended(two_nodes, job, "Complete"), 1800)
    assert len({pod.spec.node_name for pod in _pods(two_nodes, job)}) == 2
    told = two_nodes.answer("report-together", f"print(open({report!r}).read())")
    assert told["status"] == "succeeded"
    assert told["result"]["estimator"] == "mlp"


def test_a_lost_pod_ends_the_other_so_that_airflow_can_try_again(two_nodes: Namespace) -> None:
    job, _ = _train_on_two_nodes(two_nodes, "lost", 102)

    def both_run() -> Any:
        found = _pods(two_nodes, job)
        return found if len(found) == 2 and all(pod.status.phase == "Running" for pod in found) else None

    pods = wait_for("two running pods", both_run, 600)
    (second,) = [pod for pod in pods if pod.metadata.labels["batch.kubernetes.io/job-completion-index"] == "1"]
    two_nodes.kill(second.metadata.name, forced=True)
    wait_for("end of the Job", lambda: _ended(two_nodes, job, "Failed"), 600)
    assert [pod for pod in _pods(two_nodes, job) if pod.status.phase == "Running"] == []
