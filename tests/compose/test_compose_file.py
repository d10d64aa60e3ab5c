"""docker-compose.yaml as it is written: needs no Docker, but for what Compose itself says of a missing secret."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.processes import airflow_everywhere
from tests.compose.composed_stack import ONCE, RUNNING, compose, engine, write_env
from training.settings import ROOT

TEXT = (ROOT / "docker-compose.yaml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = FILE["services"]
ALWAYS = {name: service for name, service in SERVICES.items() if not service.get("profiles")}
AIRFLOW = {name for name in SERVICES if name.startswith("airflow-")}
REQUIRED = set(re.findall(r"\$\{([A-Z_]+):\?", TEXT))


def test_the_services_are_the_loops_parts() -> None:
    assert set(ALWAYS) == RUNNING | ONCE


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONCE - {"demo", "backup"}))
def test_a_service_that_goes_on_says_how_it_is_and_is_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["deploy"]["resources"]["limits"]["memory"]


def test_services_wait_for_what_they_need_to_be_well() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == expected, f"{name} needs {needed}"


def test_the_example_names_every_variable_and_no_secret() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", TEXT)) - {"IMAGES", "TAG", "GIT_SHA", "TORCH_BACKEND"}
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    # In the example as comments: an empty value would become a random one.
    optional = {"CT_LOG_LEVEL", "SIGNING_KEY", "TRUSTED_KEYS"}
    optional |= {"EXTRAS", "CT_ENGINE", "CT_ENGINE_URL", "SPARK_DRIVER_MEMORY", "SPARK_MEMORY"}
    assert used - optional == set(example)
    assert {name for name, value in example.items() if not value} == REQUIRED


def test_the_signing_key_is_in_the_steps_container_alone() -> None:
    assert {name for name, service in SERVICES.items() if service.get("secrets")} == {"steps"}
    with_path = {name for name, service in SERVICES.items() if "CT_SIGNING_KEY_FILE" in service.get("environment", {})}
    assert with_path == AIRFLOW  # They tell the step register where it is, and do not have it.
    assert SERVICES["serving"]["environment"]["CT_TRUSTED_KEYS"] == "${TRUSTED_KEYS:-}"


def test_the_environment_that_make_writes_is_random_and_private(tmp_path: Path) -> None:
    secrets = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        path = write_env(folder)
        assert path.stat().st_mode & 0o077 == 0
        assert (folder / "landing").is_dir()
        values = dict(re.findall(r"^([A-Z_]+)=(.*)$", path.read_text(), re.MULTILINE))
        secrets.append([values[name] for name in sorted(REQUIRED)])
    assert all(len(value) >= 16 and one != value for one, value in zip(*secrets, strict=True))
    again = path.read_text()
    subprocess.run(["sh", str(ROOT / "deploy" / "env.sh")], cwd=folder, check=True, capture_output=True)
    assert path.read_text() == again


def _pin(folder: Path, docker: str) -> "subprocess.CompletedProcess[str]":
    """`make pin-images` in `folder`, with a program `docker` of these lines."""
    (folder / "docker").write_text(f"#!/bin/sh\n{docker}\n")
    (folder / "docker").chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["sh", str(ROOT / "deploy" / "pin-images.sh")]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_images_of_others_are_pinned_by_the_digests_of_their_registry(tmp_path: Path) -> None:
    path = write_env(tmp_path)
    images = {name for name in re.findall(r"image: \$\{([A-Z]+_IMAGE):-", TEXT)}
    assert len(images) == len({service["image"] for service in SERVICES.values() if "build" not in service})
    path.write_text(re.sub(r"(?m)^REDIS_IMAGE=.*\n", "", path.read_text()))  # As an earlier version wrote it.
    for digest in ("sha256:one", "sha256:two"):
        assert _pin(tmp_path, f"echo {digest}").returncode == 0
        found = dict(re.findall(r"(?m)^([A-Z]+_IMAGE)=(.*)$", path.read_text()))
        assert found.keys() == images
        assert found["REDIS_IMAGE"] == f"redis:7-bookworm@{digest}"
    before = path.read_text()
    failed = _pin(tmp_path, "exit 1")
    assert (failed.returncode, path.read_text()) == (75, before)
    assert "registry" in failed.stderr
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_a_command_line(name: str) -> None:
    words = " ".join(str(SERVICES[name].get(key, "")) for key in ("command", "entrypoint", "healthcheck"))
    assert not re.findall(r"(?<!\$)\$\{?\w*(?:PASSWORD|SECRET|KEY)", words)
    assert not re.search(r"(upgrade|store-uri)[ \"']+\$", words), "a program would get the URI as an argument"


def test_steps_and_serving_have_logins_of_their_own() -> None:
    steps, serving = (SERVICES[name]["environment"] for name in ("steps", "serving"))
    assert (steps["MLFLOW_TRACKING_USERNAME"], serving["MLFLOW_TRACKING_USERNAME"]) == ("steps", "serving")
    for own, name in (("MLFLOW_STEPS_PASSWORD", "steps"), ("MLFLOW_SERVING_PASSWORD", "serving")):
        having = {each for each, service in SERVICES.items() if own in str(service.get("environment"))}
        assert having == {name, "mlflow"}


def _reached(name: str) -> set[str]:
    """The services with which `name` shares a network."""
    own = set(SERVICES[name]["networks"])
    return {each for each, service in SERVICES.items() if each != name and own & set(service["networks"])}


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("postgres", {"mlflow", "mlflow-init", "backup", *AIRFLOW}),
        ("redis", {"feast-init", "steps", "serving"}),
        ("mlflow", {"postgres", "mlflow-init", "backup", "steps", "serving"}),
        (
            "serving",
            {"redis", "mlflow", "feast-init", "steps", "demo", "prometheus"},
        ),
    ],
)
def test_a_service_is_reached_by_those_that_need_it(name: str, by: set[str]) -> None:
    assert _reached(name) == by


def test_a_database_reaches_no_address_outside_and_every_network_is_used() -> None:
    internal = {name for name, network in FILE["networks"].items() if network and network.get("internal")}
    assert {*SERVICES["postgres"]["networks"], *SERVICES["redis"]["networks"]} < internal
    assert {network for service in SERVICES.values() for network in service["networks"]} == set(FILE["networks"])
    # Docker publishes no port of a service that is in internal networks alone.
    assert all(set(service["networks"]) - internal for service in SERVICES.values() if service.get("ports"))


def test_one_service_serves_all_models() -> None:
    serving = SERVICES["serving"]["environment"]
    assert serving["CT_SERVING_MODELS"] == "${SERVING_MODELS:-*}"
    assert serving["CT_SERVING_MAXIMUM_MODELS"] == "${SERVING_MAXIMUM_MODELS:-0}"
    assert "CT_SERVING_NAME" not in serving, "the default one"
    assert SERVICES["steps"]["environment"]["CT_SERVING_URLS"] == "http://serving:3000"


def test_prometheus_reads_the_management_port() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped}
    assert targets["serving"] == [f"serving:{SERVICES['serving']['environment']['CT_SERVING_MANAGEMENT_PORT']}"]


def test_airflow_is_set_up_as_the_supervisor_sets_it_up() -> None:
    assert SERVICES["airflow-scheduler"]["env_file"] == "deploy/airflow.env"
    assert airflow_everywhere()["AIRFLOW__CORE__EXECUTOR"] == "perennial_airflow.executor.LocalExecutor"
    assert not airflow_everywhere().keys() & SERVICES["airflow-scheduler"]["environment"].keys()


@pytest.mark.docker
@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_compose_names_the_secret_that_is_missing(name: str, tmp_path: Path) -> None:
    if why := engine():
        pytest.skip(f"No Docker engine: {why}")
    assert compose(write_env(tmp_path), "--profile", "*", "config", "--quiet").returncode == 0
    refused = compose(write_env(tmp_path, **{name: ""}), "--profile", "*", "config", "--quiet")
    assert refused.returncode != 0
    assert name in refused.stderr
    assert "make env" in refused.stderr
