"""What each image holds, what it must not hold, and as whom it runs."""

import json
import subprocess

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]

HAS = {
    "airflow": [
        "airflow",
        "psycopg2",
        "asyncpg",
        "statsd",
        "authlib",
        "airflow.providers.fab.www.app",
        "perennial_airflow.operators",
        "perennial_airflow.triggers",
        "perennial_airflow.roles",
        "perennial_airflow.pages.app",
    ],
    "training": ["torch", "sklearn", "feast", "mlflow", "training.steps.train", "local.visit"],
    "serving": ["bentoml", "onnxruntime", "feast", "mlflow", "serving.model_hosts"],
    "mlflow": ["mlflow.server", "psycopg2"],
    "backup": ["training.backup", "deltalake", "mlflow"],
    "spark": ["pyspark.sql", "great_expectations", "onnxruntime", "deltalake", "pydantic_settings"],
}
LACKS = {
    "airflow": ["torch", "sklearn", "mlflow", "feast", "numpy", "pandas", "training.steps", "serving"],
    "training": ["airflow", "bentoml", "perennial_airflow", "serving"],
    "serving": ["airflow", "torch", "sklearn", "training.steps", "training.estimators", "local"],
    "mlflow": ["airflow", "torch", "feast", "bentoml", "training", "serving"],
    "backup": ["airflow", "bentoml", "perennial_airflow", "serving"],
    "spark": ["airflow", "torch", "mlflow", "feast", "training", "serving"],
}
LOOK = """
import json, os, sys
from importlib import import_module
found = []
sys.path.append("/app/plugins")
for name in sys.argv[1:]:
    try:
        import_module(name)
        found.append(name)
    except ModuleNotFoundError as error:
        if not name.startswith(error.name):
            raise
print(json.dumps({"found": found, "uid": os.getuid(), "gid": os.getgid()}))
"""


def image_of(target: str, images: dict[str, str]) -> str:
    if target not in images:
        pytest.skip(f"The image {target} is built with EXTRAS={target}")
    return images[target]


def look(image: str, names: list[str]) -> dict:
    """Import `names` in a container without a network, capabilities, or a writable root filesystem."""
    hardened = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none"]
    command = ["docker", "run", "--rm", *hardened, "--entrypoint", "python", image, "-c", LOOK, *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("target", HAS)
def test_an_image_holds_what_it_runs_and_nothing_of_the_others(target: str, images: dict[str, str]) -> None:
    seen = look(image_of(target, images), HAS[target] + LACKS[target])
    assert seen == {"found": HAS[target], "uid": 10001, "gid": 0}


@pytest.mark.parametrize("target", HAS)
def test_an_image_carries_no_secret_and_names_its_commit(target: str, images: dict[str, str]) -> None:
    image = image_of(target, images)
    inspected = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True)
    config = json.loads(inspected.stdout)[0]["Config"]
    assert config["User"] == "10001:0"
    environment = dict(each.split("=", 1) for each in config["Env"])
    assert not [name for name in environment if any(word in name for word in ("PASSWORD", "SECRET", "TOKEN", "KEY"))]
    if target not in ("mlflow", "spark"):
        assert len(environment["CT_GIT_SHA"]) == 40
        assert environment["CT_IMAGE"] == image
