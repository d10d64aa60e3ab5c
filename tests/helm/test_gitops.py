"""The GitOps example hangs together: what Argo CD applies, what is built, what is deployed, from one commit."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import HELM, Manifest, merged, named, of_kind, pods, render
from training.settings import ROOT

GITOPS = HELM / "gitops"
PRODUCTION = GITOPS / "production"


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def applications() -> list[Manifest]:
    return list(yaml.safe_load_all((GITOPS / "applications.yaml").read_text()))


@pytest.fixture(scope="module")
def build() -> Manifest:
    import helm_python

    with helm_python.Chart.load(GITOPS / "build") as chart:
        rendered = chart.render(_yaml(PRODUCTION / "images.yaml"), name="perennial-build", namespace="perennial")
    (manifest,) = yaml.safe_load_all(rendered["perennial-build/templates/build.yaml"])
    return manifest


@pytest.fixture(scope="module")
def deployed() -> list[Manifest]:
    return render(merged(_yaml(PRODUCTION / "images.yaml"), _yaml(PRODUCTION / "perennial.yaml")))


def _env(job: Manifest) -> dict[str, str]:
    return {each["name"]: each["value"] for each in job["spec"]["template"]["spec"]["containers"][0]["env"]}


def test_applications_have_the_shape_that_argo_cd_takes(applications: list[Manifest]) -> None:
    (project,) = of_kind(applications, "AppProject")
    allowed = {each["namespace"] for each in project["spec"]["destinations"]}
    for application in of_kind(applications, "Application"):
        assert application["apiVersion"] == "argoproj.io/v1alpha1"
        spec = application["spec"]
        assert spec["project"] == project["metadata"]["name"]
        assert spec["destination"]["namespace"] in allowed
        assert "source" not in spec, "one of source and sources"
        for source in spec["sources"]:
            assert source["repoURL"] in project["spec"]["sourceRepos"]
            assert source["targetRevision"]
            assert len({"path", "chart", "ref"} & source.keys()) == 1
    kinds = {(each["group"], each["kind"]) for each in project["spec"]["clusterResourceWhitelist"]}
    assert kinds == {("scheduling.k8s.io", "PriorityClass")}


def test_what_applications_name_is_in_the_repository(applications: list[Manifest]) -> None:
    files = 0
    for application in of_kind(applications, "Application"):
        for source in application["spec"]["sources"]:
            folder = ROOT / source.get("path", ".")
            assert folder.is_dir()
            for name in source.get("helm", {}).get("valueFiles", []):
                assert (
                    ROOT / name.removeprefix("$values/") if name.startswith("$values/") else folder / name
                ).is_file()
                files += 1
    assert files == 5


def test_the_chart_needs_no_cluster_wide_kind_that_the_project_forbids(deployed: list[Manifest]) -> None:
    cluster_wide = {"PriorityClass", "ClusterRole", "ClusterRoleBinding", "Namespace", "CustomResourceDefinition"}
    assert {m["kind"] for m in deployed} & cluster_wide == {"PriorityClass"}


@pytest.mark.parametrize("version", ["1.35", "1.36", "1.37"])
def test_kubernetes_takes_the_build(build: Manifest, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    assert validate(build, version, strict=True) == version


def test_what_is_deployed_is_what_is_built(build: Manifest, deployed: list[Manifest]) -> None:
    env = _env(build)
    assert env["REVISION"] == _yaml(PRODUCTION / "images.yaml")["images"]["tag"]
    built = {f"{env['REGISTRY']}/{target}:{env['REVISION']}" for target in env["TARGETS"].split()}
    airflow = _yaml(PRODUCTION / "airflow.yaml")
    used = {container["image"] for _, pod in pods(deployed) for container in pod["spec"]["containers"]}
    used.add(f"{airflow['defaultAirflowRepository']}:{airflow['defaultAirflowTag']}")
    assert used == built


def test_what_is_built_is_in_the_dockerfile(build: Manifest) -> None:
    dockerfile = ROOT / "Dockerfile"
    if not dockerfile.is_file():
        pytest.skip("there is no Dockerfile here")
    text = dockerfile.read_text()
    assert set(_env(build)["TARGETS"].split()) <= set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    script = build["spec"]["template"]["spec"]["containers"][0]["args"][0]
    assert set(re.findall(r"build-arg:(\w+)=", script)) <= set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))


def test_the_build_pushes_before_pods_change_and_only_a_commit(build: Manifest) -> None:
    import helm_python

    annotations = build["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/hook"] == "PreSync"
    assert int(annotations["argocd.argoproj.io/sync-wave"]) < 0
    with helm_python.Chart.load(GITOPS / "build") as chart, pytest.raises(helm_python.HelmError, match="tag"):
        chart.render({"images": {"registry": "r", "tag": "latest"}}, name="b", namespace="n")


def test_the_builds_script_builds_every_target_from_the_commit(build: Manifest, tmp_path: Path) -> None:
    """The real script, with a stand-in for BuildKit that writes down its arguments."""
    (container,) = build["spec"]["template"]["spec"]["containers"]
    stand_in = tmp_path / "buildctl-daemonless.sh"
    stand_in.write_text('#!/bin/sh\necho "$@" >> "$LOG"\n')
    stand_in.chmod(0o755)
    log = tmp_path / "log"
    env = {**_env(build), "PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log)}
    subprocess.run([*container["command"], *container["args"]], env=env, check=True)
    calls = log.read_text().splitlines()
    assert [re.search(r"target=(\S+)", call)[1] for call in calls] == ["airflow", "training", "serving", "mlflow"]
    assert all(f"context={env['REPOSITORY']}#{env['REVISION']}" in call for call in calls)
    assert all(call.endswith(f":{env['REVISION']},push=true") for call in calls)


def test_other_code_asks_for_a_training_after_the_pods_have_changed(deployed: list[Manifest]) -> None:
    job = named(deployed, "Job", "perennial-code-change")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-upgrade", "Argo CD's PostSync"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "training.code_change"]


def test_hooks_run_in_an_order_and_leave_nothing_behind(deployed: list[Manifest]) -> None:
    """By weight, in Helm and in Argo CD: what a Job needs first, definitions before a request to train."""
    hooks = [m for m in deployed if "helm.sh/hook" in m["metadata"].get("annotations", {})]
    weight = {
        (m["kind"], m["metadata"]["name"]): int(m["metadata"]["annotations"]["helm.sh/hook-weight"]) for m in hooks
    }
    assert {kind for kind, _ in weight} == {"Job", "ServiceAccount"}
    migrate = "perennial-migrate"
    assert weight["ServiceAccount", migrate] < weight["Job", migrate]
    assert weight["Job", "perennial-feature-definitions"] < weight["Job", "perennial-code-change"]
    for hook in hooks:
        # A Job cannot be changed: the one of the release before goes first.
        policy = hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")
        assert {"before-hook-creation", "hook-succeeded"} == set(policy)
        # Argo CD has no install and no rollback.
        phases = set(hook["metadata"]["annotations"]["helm.sh/hook"].split(","))
        assert phases & {"pre-upgrade", "post-upgrade"}
    jobs = {m["metadata"]["name"] for m in of_kind(deployed, "Job")}
    assert jobs == {name for kind, name in weight if kind == "Job"}, "a Job that is no hook could not be changed"


def test_production_lets_nothing_out_to_every_address(deployed: list[Manifest]) -> None:
    text = str([policy["spec"] for policy in of_kind(deployed, "NetworkPolicy")])
    assert "10.0.0.0/8" in text
    assert "0.0.0.0/0" not in text


def test_steps_and_airflow_have_namespaces_of_their_own_in_production(
    deployed: list[Manifest], applications: list[Manifest]
) -> None:
    used = {m["metadata"]["namespace"] for m in deployed if "namespace" in m["metadata"]}
    assert used == {"perennial-steps", "airflow"}
    (project,) = of_kind(applications, "AppProject")
    assert used < {each["namespace"] for each in project["spec"]["destinations"]}
    (airflow,) = [m for m in of_kind(applications, "Application") if m["metadata"]["name"] == "airflow"]
    (binding,) = of_kind(deployed, "RoleBinding")
    assert {subject["namespace"] for subject in binding["subjects"]} == {airflow["spec"]["destination"]["namespace"]}


def test_only_steps_have_the_credentials_of_steps_in_production(deployed: list[Manifest]) -> None:
    steps = named(deployed, "ConfigMap", "perennial-settings")["data"]["CT_POD_SECRETS"]
    given = {
        name: {source["secretRef"]["name"] for source in container.get("envFrom", []) if "secretRef" in source}
        for name, pod in pods(deployed)
        for container in pod["spec"]["containers"]
    }
    assert given["perennial-serving"] == {"perennial-serving-credentials"}
    hook = {"perennial-hook-credentials"}
    assert given["perennial-feature-definitions"] == given["perennial-code-change"] == hook
    assert [name for name, secrets in given.items() if steps in secrets] == []


def test_release_names_a_commit_in_both_files(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(GITOPS, repository / "gitops")

    def git(*args: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example"]
        done = subprocess.run(["git", *identity, *args], cwd=repository, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    release = [repository / "gitops" / "release.sh"]
    subprocess.run([*release, "HEAD"], check=True, capture_output=True)
    commit = git("rev-parse", "HEAD")
    production = repository / "gitops" / "production"
    assert _yaml(production / "images.yaml")["images"]["tag"] == commit
    assert _yaml(production / "airflow.yaml")["defaultAirflowTag"] == commit
    assert set(git("status", "--short").split()) == {
        "M",
        *(f"gitops/production/{n}.yaml" for n in ("airflow", "images")),
    }
    wrong = subprocess.run([*release, "nothing"], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "There is no commit nothing here" in wrong.stderr
