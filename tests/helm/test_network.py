"""Who may talk to whom: the policies are evaluated as Kubernetes would, and held to the table in the chart's README."""

import re

import pytest

from tests.helm.chart import CHART, PRODUCTION, Manifest, merged, named, nested, of_kind, pods, render, selects
from tests.helm.conftest import EVERYTHING, LOCAL

STEP = {"app.kubernetes.io/part-of": "perennial", "app.kubernetes.io/component": "step"}
OUTSIDE = {"object store": 443, "database": 5432, "online store": 6379}
PORTS = {"serving": 3000, "mlflow": 5000, "postgresql": 5432, "redis": 6379}
#: Everything that has pods, in a trial with all hooks.
TRIAL = merged(LOCAL, nested("hooks.codeChange.enabled", True))


class Network:
    """Pods of one namespace under its policies."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.policies = [policy["spec"] for policy in of_kind(manifests, "NetworkPolicy")]
        self.pods = {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod for _, pod in pods(manifests)}
        self.labels = {name: pod["metadata"]["labels"] for name, pod in self.pods.items()} | {
            "step": STEP,
            "airflow": {"tier": "airflow", "component": "worker"},
            "stranger": {"app": "stranger"},
        }

    def may(self, source: str, target: str, port: int) -> bool:
        """Whether a new connection is let out of `source` and into `target`."""
        return self._passes(source, target, port, "Egress") and self._passes(target, source, port, "Ingress")

    def _passes(self, subject: str, peer: str, port: int, way: str) -> bool:
        mine = [p for p in self.policies if way in p["policyTypes"] and selects(p["podSelector"], self.labels[subject])]
        rules = [rule for policy in mine for rule in policy.get(way.lower(), [])]
        return not mine or any(self._takes(rule, peer, port, way) for rule in rules)

    def _takes(self, rule: Manifest, peer: str, port: int, way: str) -> bool:
        if port not in {p.get("port") for p in rule.get("ports", [{"port": port}])}:
            return False
        peers = rule.get("to" if way == "Egress" else "from")
        if peers is None:
            return True
        return any(
            selects(each["podSelector"], self.labels[peer])
            for each in peers
            if "podSelector" in each and "namespaceSelector" not in each
        )

    def outside(self, source: str) -> set[int]:
        """The ports on which `source` may reach addresses outside the cluster."""
        mine = [
            p for p in self.policies if "Egress" in p["policyTypes"] and selects(p["podSelector"], self.labels[source])
        ]
        rules = [rule for policy in mine for rule in policy.get("egress", [])]
        return {p["port"] for r in rules if any("ipBlock" in each for each in r.get("to", [])) for p in r["ports"]}


def _table() -> set[tuple[str, str, int]]:
    """(from, to, port) of the README's table, rows of pods only."""
    text = (CHART / "README.md").read_text()
    section = text[text.index("## Who may talk to whom") :].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| `([a-z-]+)` \| (\d+|all) \|", section, re.MULTILINE)
    return {(source, target, 0 if port == "all" else int(port)) for source, target, port in rows}


def test_the_readme_shows_every_way_that_is_open_and_no_other() -> None:
    network = Network(
        render(
            merged(TRIAL, nested("networkPolicy.servingClients", [{"podSelector": {"matchLabels": {"app": "caller"}}}]))
        )
    )
    network.labels["caller"] = {"app": "caller"}
    names = set(network.labels)
    found = {(s, t, p) for s in names for t, p in PORTS.items() if s != t and network.may(s, t, p)}
    if network.may("step", "step", 29500):
        found.add(("step", "step", 0))
    assert found == _table()


def test_every_pod_is_under_a_default_deny(manifests: list[Manifest], request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["manifests"] == "bare":
        assert not of_kind(manifests, "NetworkPolicy")
        return
    deny = named(manifests, "NetworkPolicy", "perennial-default-deny")["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(deny)
    for name, pod in pods(manifests):
        assert selects(deny["podSelector"], pod["metadata"]["labels"]), name
    assert selects(deny["podSelector"], STEP)
    assert not selects(deny["podSelector"], {"tier": "airflow"})


def test_every_pod_has_a_policy_of_its_own_and_no_policy_is_for_nobody(manifests: list[Manifest]) -> None:
    labels = [pod["metadata"]["labels"] for _, pod in pods(manifests)] + [STEP]
    own = [p for p in of_kind(manifests, "NetworkPolicy") if not p["metadata"]["name"].endswith(("-deny", "-dns"))]
    for policy in own:
        assert any(selects(policy["spec"]["podSelector"], each) for each in labels), policy["metadata"]["name"]
    for each in labels if own else []:
        assert any(selects(policy["spec"]["podSelector"], each) for policy in own), each


def test_names_can_be_looked_up_by_all(production: list[Manifest]) -> None:
    (rule,) = named(production, "NetworkPolicy", "perennial-dns")["spec"]["egress"]
    assert {(port["port"], port["protocol"]) for port in rule["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert rule["to"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}


def test_ways_out_of_the_cluster_are_those_that_are_used() -> None:
    far, near = Network(render(merged(PRODUCTION, EVERYTHING))), Network(render(TRIAL))
    assert far.outside("serving") == {443, 6379}
    assert far.outside("step") == {443, 6379, 15002}
    assert far.outside("mlflow") == {443, 5432}
    assert far.outside("migrate") == {5432}
    assert far.outside("feature-definitions") == {443, 6379}
    assert far.outside("code-change") == {443}
    assert all(near.outside(name) == set() for name in near.labels if name not in {"airflow", "stranger"})


def test_predictions_are_for_those_that_are_named() -> None:
    clients = [{"podSelector": {"matchLabels": {"app": "caller"}}}]
    closed = Network(render(merged(TRIAL, nested("networkPolicy.servingClients", clients))))
    closed.labels["caller"] = {"app": "caller"}
    assert closed.may("caller", "serving", 3000)
    assert closed.may("step", "serving", 3000)
    assert not closed.may("stranger", "serving", 3000)
    assert Network(render(TRIAL)).may("stranger", "serving", 3000)


def test_metrics_and_admin_are_for_prometheus_alone() -> None:
    release = render(TRIAL)
    inside = Network(release)
    assert not [name for name in inside.labels if inside.may(name, "serving", 3002)]
    rules = named(release, "NetworkPolicy", "perennial-serving")["spec"]["ingress"]
    (rule,) = [rule for rule in rules if rule["ports"] == [{"port": 3002}]]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    others = nested("networkPolicy.prometheus", [{"podSelector": {"matchLabels": {"app": "stranger"}}}])
    assert Network(render(merged(TRIAL, others))).may("stranger", "serving", 3002)
    closed = render(merged(TRIAL, nested("networkPolicy.prometheus", [])))
    rules = named(closed, "NetworkPolicy", "perennial-serving")["spec"]["ingress"]
    assert [rule["ports"] for rule in rules] == [[{"port": 3000}]]
