"""The images, built once for all the tests that need them."""

import os
import subprocess

import pytest

from tests.compose.composed_stack import TAG, engine
from training.settings import ROOT

#: What `make images` builds. With EXTRAS=spark, the training image has pyspark, and there is an image of Spark.
TARGETS = ["airflow", "training", "serving", "mlflow", "backup"]
if os.environ.get("EXTRAS") == "spark":
    TARGETS.append("spark")


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Target of the Dockerfile → the image's name."""
    if why := engine():
        pytest.skip(f"No Docker engine: {why}")
    built = subprocess.run(["make", "images", f"TAG={TAG}"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    print(built.stdout)
    return {target: f"perennial/{target}:{TAG}" for target in TARGETS}
