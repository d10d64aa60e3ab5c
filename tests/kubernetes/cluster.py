"""What the tests do with a cluster: pods of the project's images, and looking at those of others."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from training.settings import ROOT

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
USER = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 0,
    "fsGroup": 0,
    "seccompProfile": {"type": "RuntimeDefault"},
}

STEPS = "app.kubernetes.io/component=step"
SERVING = "app.kubernetes.io/component=serving"
#: Eight weeks of payments, enough for a fit of the multilayer perceptron to take a while.
DATA = ["-m", "local.generator", "--landing", "/var/lib/perennial/landing", "--start", "2026-01-05", "--days", "56"]
DATA += ["--days-per-file", "14", "--customers", "4000", "--terminals", "8000"]
PAYMENT = {
    "transaction_id": 1,
    "event_time": "2026-03-02T23:10:00Z",
    "customer_id": 7,
    "terminal_id": 42,
    "amount": 180.5,
}
#: Asks again and again for so many seconds, in some threads, retries nothing, and prints what went wrong.
CLIENT = """
import concurrent.futures, json, time, urllib.request
until = time.time() + SECONDS
def ask(_):
    failed, answered = [], 0
    while time.time() < until:
        body = json.dumps(PAYLOAD).encode()
        request = urllib.request.Request(URL, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                json.load(answer)
                answered += 1
        except Exception as error:
            failed.append(repr(error))
        time.sleep(PAUSE)
    return answered, failed
with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
    told = list(pool.map(ask, range(THREADS)))
print(json.dumps({"answered": sum(n for n, _ in told), "failed": [each for _, failed in told for each in failed]}))
"""


def requests_for(seconds: int, threads: int = 1, pause: float = 0.1) -> str:
    """Python code of a client of the prediction service."""
    values = {"URL": "http://perennial-serving:3000/models/card_fraud/predict", "PAYLOAD": PAYMENT}
    values |= {"SECONDS": seconds, "THREADS": threads, "PAUSE": pause}
    return "".join(f"{name} = {value!r}\n" for name, value in values.items()) + CLIENT


def wait_for(what: str, look: Callable[[], Any], seconds: float) -> Any:
    """What `look` finds, asked every two seconds. Fails when it finds nothing for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(2)
    raise AssertionError(f"No {what} after {seconds:.0f} s")


class Namespace:
    """A namespace in which the cluster itself refuses pods that are not restricted."""

    def __init__(self, name: str, images: str, tag: str) -> None:
        from kubernetes import client, config

        config.load_kube_config()
        self.name, self.images, self.tag = name, images, tag
        self.core = client.CoreV1Api()
        self.batch = client.BatchV1Api()
        self.scaling = client.AutoscalingV2Api()

    def create(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace({"metadata": {"name": self.name, "labels": labels}})

    def delete(self) -> None:
        self.core.delete_namespace(self.name)

    def may(self, account: str, verb: str, resource: str, namespace: str | None = None) -> bool:
        """As `kubectl auth can-i`, for a service account of this namespace: `may("step", "create", "pods/exec")`."""
        from kubernetes import client

        name, _, part = resource.partition("/")
        group = "batch" if name == "jobs" else ""
        where = {"namespace": namespace or self.name, "verb": verb, "group": group, "resource": name}
        review = {
            "spec": {
                "user": f"system:serviceaccount:{self.name}:{account}",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{self.name}", "system:authenticated"],
                "resourceAttributes": {**where, "subresource": part},
            }
        }
        answer = client.AuthorizationV1Api().create_subject_access_review(review)
        return bool(answer.status.allowed)

    def accounts(self) -> set[str]:
        return {each.metadata.name for each in self.core.list_namespaced_service_account(self.name).items}

    def refusal(self, pod: dict[str, Any]) -> str:
        """Why the cluster refuses a pod; empty when it would take it. Creates none."""
        from kubernetes.client import ApiException

        try:
            self.core.create_namespaced_pod(self.name, pod, dry_run="All")
        except ApiException as error:
            return str(error.body)
        return ""

    def apply(self, manifests: str) -> None:
        for manifest in yaml.safe_load_all(manifests):
            if manifest:
                self.core.create_namespaced_secret(self.name, manifest)

    def service_account(self, name: str) -> None:
        self.core.create_namespaced_service_account(self.name, {"metadata": {"name": name}})

    def image(self, name: str) -> str:
        return f"{self.images}/{name}:{self.tag}"

    def run(self, pod: dict[str, Any]) -> str:
        self.core.create_namespaced_pod(self.name, pod)
        return str(pod["metadata"]["name"])

    def pods(self, selector: str) -> list[Any]:
        return list(self.core.list_namespaced_pod(self.name, label_selector=selector).items)

    def ready(self, selector: str) -> list[Any]:
        """The pods that a Service sends requests to."""
        return [pod for pod in self.pods(selector) if is_ready(pod)]

    def nodes(self) -> int:
        """How many nodes take pods."""
        found = self.core.list_node().items
        return sum(
            not node.spec.unschedulable and not any(_keeps_out(t) for t in node.spec.taints or []) for node in found
        )

    def settings(self) -> dict[str, str]:
        """What the chart says to steps: its ConfigMap."""
        return dict(self.core.read_namespaced_config_map("perennial-settings", self.name).data)

    def answer(self, name: str, code: str, seconds: float = 300) -> Any:
        """The JSON that Python code prints last in a pod of the training image, with the state."""
        self.run(self.training_pod(name, ["-c", code]))
        wait_for(f"end of {name}", lambda: self.phase(name) in {"Succeeded", "Failed"}, seconds)
        return json.loads(self.log(name).strip().splitlines()[-1])

    def phase(self, name: str) -> str:
        return str(self.core.read_namespaced_pod(name, self.name).status.phase)

    def log(self, name: str) -> str:
        # Read as it is: the client would parse a log that is JSON, and give its Python form.
        raw = self.core.read_namespaced_pod_log(name, self.name, _preload_content=False)
        return bytes(raw.data).decode(errors="replace")

    def said(self, name: str, text: str) -> bool:
        """Whether `text` is in the log of a pod, which may not have begun, or be gone."""
        from kubernetes.client import ApiException

        try:
            return text in self.log(name)
        except ApiException:
            return False

    def kill(self, name: str, forced: bool = False) -> None:
        """`forced`: without a grace period, as when a node is gone; the process gets SIGKILL."""
        self.core.delete_namespaced_pod(name, self.name, **({"grace_period_seconds": 0} if forced else {}))

    def evict(self, name: str) -> int:
        """Ask for an eviction, as a node drain does. Returns 201, or 429 when a disruption budget forbids it."""
        from kubernetes.client import ApiException

        try:
            self.core.create_namespaced_pod_eviction(name, self.name, {"metadata": {"name": name}})
        except ApiException as error:
            return int(error.status)
        return 201

    def training_pod(self, name: str, argv: Sequence[str], state: bool = True) -> dict[str, Any]:
        """A pod of the training image that runs `python *argv` once.

        It has serving's priority: without a class, a serving pod that needs room would take its place.
        """
        made = pod(self, name, "training", ["python", *argv], state=state)
        made["spec"]["priorityClassName"] = f"{self.name}-serving"
        return made


def is_ready(pod: Any) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or [])


def _keeps_out(taint: Any) -> bool:
    return taint.effect in {"NoSchedule", "NoExecute"}


def airflow_pod(space: Namespace) -> dict[str, Any]:
    """All of Airflow in one pod: any part's end is the pod's."""
    lines = [line for line in (ROOT / "deploy" / "airflow.env").read_text().splitlines() if "=" in line]
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    settings["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = "http://127.0.0.1:8080/execution/"
    settings["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] = "True"
    environment: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in settings.items()]
    for name, key in {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "connection",
        "AIRFLOW__CORE__FERNET_KEY": "fernet-key",
        "AIRFLOW__API__SECRET_KEY": "api-secret-key",
        "AIRFLOW__API_AUTH__JWT_SECRET": "jwt-secret",
    }.items():
        environment.append({"name": name, "valueFrom": {"secretKeyRef": {"name": "perennial-airflow", "key": key}}})
    parts = [
        "api-server --host 127.0.0.1",
        "scheduler --skip-serve-logs",
        "dag-processor",
        "triggerer --skip-serve-logs",
    ]
    start = " ".join(f"airflow {part} &" for part in parts)
    script = f"until airflow db migrate; do sleep 5; done; {start} wait -n"
    made = pod(space, "airflow", "airflow", ["bash", "-c", script], environment)
    made["metadata"]["labels"]["tier"] = "airflow"
    made["spec"]["serviceAccountName"] = "airflow"
    return made


def pod(
    space: Namespace,
    name: str,
    image: str,
    command: Sequence[str],
    environment: Sequence[dict[str, Any]] = (),
    state: bool = True,
) -> dict[str, Any]:
    """A restricted pod with the release's settings and, with `state`, its volume."""
    volumes = [{"name": "state", "persistentVolumeClaim": {"claimName": "perennial-state"}}] if state else []
    mounts = [{"name": "state", "mountPath": "/var/lib/perennial"}] if state else []
    container = {
        "name": name,
        "image": space.image(image),
        "command": list(command),
        "env": list(environment),
        "envFrom": [
            {"configMapRef": {"name": "perennial-settings"}},
            {"secretRef": {"name": "perennial-credentials"}},
        ],
        "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }
    return {
        "metadata": {"name": name, "labels": {"test": name}},
        "spec": {"restartPolicy": "Never", "securityContext": USER, "containers": [container], "volumes": volumes},
    }
