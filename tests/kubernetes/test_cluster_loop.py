"""The loop on a cluster: data lands, steps are pods, a champion serves, and what is killed on the way does no harm."""

import json
from typing import Any

import pytest

from tests.kubernetes.cluster import DATA, SERVING, STEPS, Namespace, is_ready, requests_for, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def killed(namespace: Namespace) -> dict[str, Any]:
    """Lands data, kills the first long fit after an epoch of it, and waits until a champion serves."""
    landing = namespace.run(namespace.training_pod("landing", [*DATA]))
    wait_for("landed data", lambda: namespace.phase(landing) == "Succeeded", 600)
    seen: dict[str, Any] = {}

    def running() -> Any:
        for pod in namespace.pods(f"{STEPS},perennial/step=train"):
            fits_long = any('"mlp"' in argument for argument in pod.spec.containers[0].args)
            if fits_long and namespace.said(pod.metadata.name, "Epoch 1:"):
                return pod
        for pod in namespace.pods(STEPS):
            seen[pod.metadata.name] = pod
        return None

    victim = wait_for("training pod", running, 1800)
    namespace.kill(victim.metadata.name, forced=True)
    task = f"perennial/task-instance={victim.metadata.labels['perennial/task-instance']}"

    def retried() -> Any:
        pods = [pod for pod in namespace.pods(task) if pod.metadata.name != victim.metadata.name]
        return next(iter(pods), None)

    again = wait_for("second try of the killed step", retried, 600)
    wait_for("resumed fit", lambda: namespace.said(again.metadata.name, "Resumed after epoch"), 600)
    wait_for("champion", lambda: _ready(namespace), 1800)
    return {"victim": victim, "again": again, "seen": [*seen.values(), victim, again]}


def test_step_pods_are_restricted(killed: dict[str, Any]) -> None:
    for pod in killed["seen"]:
        assert pod.spec.automount_service_account_token is False
        assert pod.spec.security_context.run_as_non_root is True
        (container,) = pod.spec.containers
        assert container.security_context.read_only_root_filesystem is True
        assert container.security_context.capabilities.drop == ["ALL"]


def test_a_killed_step_is_tried_again_in_a_pod_of_its_own(killed: dict[str, Any]) -> None:
    victim, again = killed["victim"].metadata.labels, killed["again"].metadata.labels
    assert int(again["perennial/try"]) == int(victim["perennial/try"]) + 1
    assert again["perennial/run"] == victim["perennial/run"]


def test_every_step_left_a_report_and_succeeded_pods_are_gone(namespace: Namespace, killed: dict[str, Any]) -> None:
    code = (
        "import glob, json; print(json.dumps([json.load(open(p))['status'] for p in "
        "sorted(glob.glob('/var/lib/perennial/work/results/card_fraud_train/**/*.json', recursive=True))]))"
    )
    statuses = namespace.answer("reports", code)
    assert statuses.count("succeeded") >= 6
    wait_for("end of the succeeded pods", lambda: not _succeeded(namespace), 300)


def test_a_killed_serving_pod_is_not_noticed(namespace: Namespace, killed: dict[str, Any]) -> None:
    client = namespace.run(namespace.training_pod("client", ["-c", requests_for(60)], state=False))
    wait_for("client", lambda: namespace.phase(client) == "Running", 300)
    namespace.kill(namespace.pods(SERVING)[0].metadata.name)
    wait_for("end of the client", lambda: namespace.phase(client) == "Succeeded", 300)
    told = json.loads(namespace.log(client).strip().splitlines()[-1])
    assert told["failed"] == []
    assert told["answered"] > 100


def test_the_budget_lets_one_replica_be_evicted_at_a_time(namespace: Namespace, killed: dict[str, Any]) -> None:
    """A drain of both nodes at once takes one replica, and the next only when the first is replaced."""
    wait_for("two ready replicas", lambda: _ready(namespace), 600)
    first, second = (pod.metadata.name for pod in namespace.pods(SERVING)[:2])
    assert namespace.evict(first) == 201
    assert namespace.evict(second) == 429
    gone = {first}
    wait_for("replacement", lambda: gone.isdisjoint(p.metadata.name for p in namespace.pods(SERVING)), 300)
    wait_for("two ready replicas", lambda: _ready(namespace), 600)
    assert namespace.evict(second) == 201


def _ready(namespace: Namespace) -> bool:
    """A serving pod without a champion is not ready."""
    pods = namespace.pods(SERVING)
    return len(pods) >= 2 and all(is_ready(pod) for pod in pods)


def _succeeded(namespace: Namespace) -> list[Any]:
    return [pod for pod in namespace.pods(STEPS) if pod.status.phase == "Succeeded"]
