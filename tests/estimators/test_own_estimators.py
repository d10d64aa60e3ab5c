"""A spec may name any scikit-learn-compatible model or a torch module by its path."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.cases import others_long
from tests.estimators.test_matrix import KINDS, exported, made, odd
from training.code import fitting_digest
from training.contract.errors import ConfigError
from training.contract.names import Target
from training.domain.parity import prove_parity
from training.estimators import base
from training.estimators.base.try_out import try_out

SOURCE = """
import numpy as np
import torch
from lightgbm import LGBMRegressor
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from torch import nn
from xgboost import XGBClassifier


def scaled_logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))

def trees():
    return ExtraTreesRegressor(n_estimators=10, max_depth=6)

def boosted():
    return LGBMRegressor(n_estimators=20, verbose=-1)

def xgb():
    return XGBClassifier(n_estimators=10)

class Residual(nn.Module):
    def __init__(self, inputs, outputs, width=16):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x):
        x = nn.functional.gelu(self.first(x))
        return self.last(x + torch.relu(self.second(x)))

class Odd(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.last = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.last(torch.special.bessel_j0(x))

def logged():
    return make_pipeline(FunctionTransformer(np.abs), LogisticRegression())

def without_probabilities():
    return LinearSVC()

def nothing():
    return 3
"""
DOCS = Path(__file__).parents[2] / "docs" / "estimators.md"
QUICK = {"max_epochs": 3, "batch_size": 64}


@pytest.fixture(scope="module", autouse=True)
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    path = folder / "own_models.py"
    path.write_text(SOURCE)
    sys.path.insert(0, str(folder))
    yield path
    sys.path.remove(str(folder))
    sys.modules.pop("own_models", ModuleType("none"))


def test_the_example_in_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, rest = DOCS.read_text().partition("```python\n")
    (tmp_path / "my_models.py").write_text(rest.partition("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    # The module is forgotten afterwards: other tests of this process name a module that is not there.
    monkeypatch.setitem(sys.modules, "my_models", ModuleType("my_models"))
    monkeypatch.delitem(sys.modules, "my_models")
    for block in DOCS.read_text().split("```yaml\n")[1:]:
        for name, given in yaml.safe_load(block.partition("```")[0])["training"]["estimators"].items():
            estimator = base.load(name)
            target: Target = "number" if "number" in estimator.DEFAULTS else "binary"
            try_out(name, estimator, target, base.parameters_for(name, estimator, target, given))


@pytest.mark.parametrize(
    ("name", "target"),
    others_long(
        [
            ("scaled_logistic", "binary"),
            ("trees", "number"),
            ("Residual", "classes"),
            ("scaled_logistic", "classes"),
            ("boosted", "number"),
            ("xgb", "classes"),
            ("Residual", "binary"),
            ("Residual", "number"),
        ],
        first=3,
    ),
)
def test_learns_from_everything_and_exports_it(name: str, target: Target) -> None:
    path = f"own_models:{name}"
    estimator = base.load(path)
    parameters = base.parameters_for(path, estimator, target, QUICK if name == "Residual" else {})
    data = made(target, KINDS["all"])
    fitted = estimator.fit(data, parameters, 7)
    content = fitted.onnx()
    for rows in (data.features, odd(data)):
        assert prove_parity(fitted.outputs(rows), exported(content, rows), target) < 1e-2
    assert estimator.fit(data, parameters, 7).onnx() == content
    try_out(path, estimator, target, parameters)


def test_parameters_are_those_of_the_model_or_the_factory() -> None:
    logistic = base.load("own_models:scaled_logistic")
    assert logistic.DEFAULTS["binary"]["logisticregression__max_iter"] == 500
    assert "logisticregression__random_state" not in logistic.DEFAULTS["binary"]
    assert base.load("own_models:Residual").DEFAULTS["number"]["width"] == 16
    assert {"lightgbm"} <= set(base.load("own_models:boosted").LIBRARIES)
    with pytest.raises(ConfigError, match="cannot learn classes"):
        base.parameters_for("own_models:trees", base.load("own_models:trees"), "classes", {})


def test_the_seed_decides() -> None:
    estimator, data = base.load("own_models:trees"), made("number", KINDS["numbers"])
    defaults = estimator.DEFAULTS["number"]
    assert estimator.fit(data, defaults, 1).onnx() != estimator.fit(data, defaults, 2).onnx()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("logged", "Pipeline cannot be exported to ONNX: FunctionTransformer is not supported"),
        ("Odd", "Odd cannot be exported to ONNX: .*bessel_j0"),
    ],
)
def test_what_cannot_be_exported_is_named_on_made_rows(name: str, found: str) -> None:
    path = f"own_models:{name}"
    estimator = base.load(path)
    parameters = base.parameters_for(path, estimator, "binary", QUICK if name == "Odd" else {})
    with pytest.raises(ConfigError, match=f"{path} fails on made rows: .*{found}"):
        try_out(path, estimator, "binary", parameters)


def test_what_is_no_estimator_is_refused() -> None:
    with pytest.raises(ConfigError, match="LinearSVC has no predict_proba"):
        base.load("own_models:without_probabilities")
    with pytest.raises(ConfigError, match="is a int without DEFAULTS"):
        base.load("own_models:nothing")


def test_its_file_decides_the_training_code(own: Path) -> None:
    assert base.outside_sources("own_models:trees") == {own.name: own}
    assert base.outside_sources("own_models:Residual") == {own.name: own}
    assert [base.outside_sources(name) for name in ("mlp", "lightgbm")] == [{}, {}]


def test_its_whole_package_decides_the_training_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_package" / "deep").mkdir(parents=True)
    files = {"__init__.py": "", "layers.py": "WIDTH = 8\n", "deep/__init__.py": "", "deep/nets.py": ""}
    files["deep/nets.py"] = "from own_package.layers import WIDTH\n" + SOURCE
    files["deep/__init__.py"] = "from own_package.deep.nets import trees\ndef inside():\n    return trees()\n"
    for name, content in files.items():
        (tmp_path / "own_package" / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("", ".layers", ".deep", ".deep.nets"):  # Other tests must not find them loaded.
        monkeypatch.setitem(sys.modules, f"own_package{name}", ModuleType("none"))
        monkeypatch.delitem(sys.modules, f"own_package{name}")
    want = {f"own_package/{name}": tmp_path / "own_package" / name for name in files}
    for path in ("own_package.deep.nets:trees", "own_package.deep.nets:Residual", "own_package.deep:inside"):
        assert base.outside_sources(path) == want
    before = fitting_digest(["own_package.deep.nets:trees"])
    want["own_package/layers.py"].write_text("WIDTH = 9\n")
    assert fitting_digest(["own_package.deep.nets:trees"]) != before
