"""Every estimator gives the same bytes in another process, for every target, also calibrated."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from tests.estimators.test_calibration import METHODS, calibrated
from tests.estimators.test_estimators import QUICK, learn
from tests.estimators.test_matrix import CASES, KINDS, made
from training.settings import ROOT

pytestmark = pytest.mark.long

#: Estimator, target, calibration.
FITS = [
    (name, target, method)
    for name, target in CASES
    for method in ("none", *METHODS)
    if method == "none" or (target != "number" and name in QUICK)
]
#: The last bits of what it fits depend on the number of threads, which the recipe of a version names.
BY_THREADS = "mlp"


def digests(names: list[str]) -> dict[str, str]:
    """Fit → SHA-256 of its ONNX model. The rows are so many that libraries divide them among threads."""
    found = {}
    for name, target, method in FITS:
        if name in names:
            data = made(target, KINDS["all"], 3000)
            fitted = learn(name, data) if method == "none" else calibrated(name, method, data)
            found[f"{name} {target} {method}"] = hashlib.sha256(fitted.onnx()).hexdigest()
    return found


def in_a_process(names: list[str], threads: int, order: int) -> dict[str, str]:
    """`digests` of a new process with so many threads, in which sets have another order for each `order`."""
    program = f"import json; from {__name__} import digests; print(json.dumps(digests({names})))"
    environment = {**os.environ, "PYTHONHASHSEED": str(order), "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(ended.stdout.splitlines()[-1])
    return found


def test_the_same_bytes_in_another_process() -> None:
    names = sorted({name for name, _, _ in FITS})
    first = in_a_process(names, threads=2, order=1)
    assert len(first) == len(FITS)
    others = [name for name in names if name != BY_THREADS]
    again = in_a_process(others, threads=1, order=2) | in_a_process([BY_THREADS], threads=2, order=2)
    assert again == first
