"""A new estimator and a new drift test are one file each: in this repository or in another package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]

ESTIMATOR = """
from sklearn.naive_bayes import GaussianNB
from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT
from training.estimators.base.sklearn_fitted import fit_sklearn

class NaiveBayes:
    DEFAULTS = {"binary": {"var_smoothing": 1e-9}}
    DISTRIBUTED = False
    LIBRARIES = ("onnx", "scikit-learn", "skl2onnx")

    def fit(self, data, parameters, seed, checkpoint=NO_CHECKPOINT):
        return fit_sklearn(GaussianNB(**parameters), data)
"""
DRIFT_TEST = """
from training.contract.messages import Shift
from training.contract.registries import DRIFT_TESTS

@DRIFT_TESTS.register("mean_shift")
def mean_shift(reference, current, minimum):
    found = {}
    for name, values in current.columns.items():
        moved = abs(values.mean() - reference.columns[name].mean()) > 1
        p_value = 1e-9 if moved else 1.0
        found[name] = Shift(
            part="moved", reference=0, current=float(moved), minimum=minimum, p_value=p_value, design_effect=1
        )
    return found
"""
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np, yaml
from training.contract.model_spec import load_model_spec

names = sys.argv[1:]
path = Path("training/models/card_fraud.yaml")
content = yaml.safe_load(path.read_text())
content["training"]["estimators"] = {name: {} for name in names}
content["monitoring"]["test"] = "mean_shift"
path.write_text(yaml.safe_dump(content))
spec = load_model_spec("card_fraud")
early = {name for name in ("sklearn", "torch", "evidently", "bayes", "shifts") if name in sys.modules}

from training.adapters.onnx_model import OnnxScorer
from training.code import training_code
from training.contract.registries import DRIFT_TESTS
from training.domain.comparison import Side
from training.domain.drift import tested
from training.domain.parity import prove_parity
from training.estimators import base
from training.settings import load_settings

random = np.random.default_rng(0)
features = random.normal(size=(500, 3)).astype(np.float32)
labels = (features[:, 0] + random.normal(size=500) > 0).astype(int)
data = base.TrainingData(features, labels, base.number_columns("abc"), "binary")
parity = {}
for name in spec.training.estimators:
    estimator = base.load(name)
    fitted = estimator.fit(data, base.parameters_for(name, estimator, "binary", {}), 1)
    parity[name] = prove_parity(fitted.outputs(features), OnnxScorer(fitted.onnx()).score(features))
before = dict(zip("abc", features.T))
sides = [(Side(before), Side(before | {"a": before["a"] + 2}))]
shifts = tested(sides, DRIFT_TESTS.find(spec.monitoring.test), 0.02, 0.05, 0.005)
drifted = [name for name, shift in shifts.items() if shift.drifted]
code = training_code(load_settings(), spec)
print(json.dumps({"early": sorted(early), "parity": parity, "drifted": drifted, "code": code}))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code, beside a folder `elsewhere` of another package."""
    for folder in ("training", "feature_repo"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def run(copy: Path, *names: str) -> dict:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CT_")}
    environment = kept | {"PYTHONPATH": f"{copy}:{copy / 'elsewhere'}", "CT_HOME": str(copy / "state")}
    command = [sys.executable, "program.py", *names]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_a_new_member_is_one_file(copy: Path) -> None:
    registered = ESTIMATOR.replace("class Naive", '@ESTIMATORS.register("naive_bayes")\nclass Naive')
    (copy / "training" / "estimators" / "naive_bayes.py").write_text(registered)
    (copy / "training" / "adapters" / "drift_tests" / "mean_shift.py").write_text(DRIFT_TEST)
    found = run(copy, "naive_bayes")
    assert found["early"] == []
    assert found["parity"]["naive_bayes"] < 1e-4
    assert found["drifted"] == ["a"]


@pytest.mark.long
def test_another_package_joins_with_entry_points_or_is_named_by_its_path(copy: Path) -> None:
    outside = copy / "elsewhere"
    (outside / "bayes.py").write_text(ESTIMATOR)
    (outside / "shifts.py").write_text(DRIFT_TEST.replace('@DRIFT_TESTS.register("mean_shift")\n', ""))
    metadata = outside / "outside-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[perennial.estimator]\nnaive_bayes = bayes:NaiveBayes\n"
        "[perennial.drift_test]\nmean_shift = shifts:mean_shift\n"
    )
    found = run(copy, "naive_bayes", "bayes:NaiveBayes")
    assert found["early"] == []
    assert set(found["parity"]) == {"naive_bayes", "bayes:NaiveBayes"}
    assert max(found["parity"].values()) < 1e-4
    assert found["drifted"] == ["a"]
    # Another source is other training code.
    (outside / "bayes.py").write_text(ESTIMATOR + "\n# changed\n")
    assert run(copy, "naive_bayes", "bayes:NaiveBayes")["code"] != found["code"]


TASK_PROGRAM = """
import json
import sys

sys.modules["xgboost"] = None  # a task kind needs no estimator
import numpy as np

from training.contract.model_spec import load_model_spec
from training.contract.registries import TASKS
from training.domain.task_kind import Fitting, served_task, task_of
from training.settings import load_settings

settings = load_settings()
early = [name for name in TASKS.modules if f"training.domain.tasks.{name}" in sys.modules]
task = task_of(load_model_spec("card_fraud", settings.models_dir, settings.feature_repo))
served = task.fit(Fitting((), np.ones(3)))
print(json.dumps({"early": early, "kind": type(task).__name__, "rules": list(task.rules),
                  "served": type(served_task(served.stored())).__module__, "target": task.target}))
"""


@pytest.mark.long
def test_a_new_task_kind_is_one_file(copy: Path) -> None:
    """The stub of test_task_kinds.py, which goes through all steps there, as a file of its own."""
    path = ROOT / "tests" / "steps" / "test_task_kinds.py"
    head, _, rest = path.read_text().partition("# --- a fourth kind")
    stub = rest.partition("\n")[2].partition("# --- the same steps")[0]
    imports = [line for line in head.splitlines() if line.startswith(("from training", "import numpy"))]
    imports = [line for line in imports if not line.endswith("(") and ".steps" not in line and "adapters" not in line]
    plain = "from collections.abc import Mapping, Sequence\nfrom dataclasses import dataclass\nfrom typing import Any\n"
    (copy / "training" / "domain" / "tasks" / "count.py").write_text("\n".join([plain, *imports, stub]))
    (copy / "program.py").write_text(TASK_PROGRAM)
    spec = yaml.safe_load((copy / "training" / "models" / "card_fraud.yaml").read_text())
    spec["task"] = {"kind": "count", "horizon": 3}
    spec["evaluation"] = {"primary": "poisson_deviance", "limits": {"poisson_deviance": 3.0}}
    (copy / "training" / "models" / "card_fraud.yaml").write_text(yaml.safe_dump(spec))
    found = run(copy)
    module = "training.domain.tasks.count"
    assert found == {
        "early": [],
        "kind": "Count",
        "rules": ["poisson_deviance"],
        "served": module,
        "target": "number",
    }


@pytest.mark.ci
def test_the_defaults_of_a_network_are_read_without_torch() -> None:
    code = "import sys; from training.estimators import base; base.load('mlp'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
