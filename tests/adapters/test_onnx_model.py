"""A served artifact is whole, is the one that it says it is, and refuses what it cannot score."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from testing.onnx_attacks import giant_fill, giant_initializer, replace_model
from tests.adapters.tiny_artifact import make_artifact
from training.adapters.onnx_model import OnnxModel, digest, write_artifact
from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT
from training.contract.errors import DataContractError, InputError
from training.estimators.base.graph import serialise

VIEW = {
    "name": "v",
    "entity": "card",
    "entity_type": "INT64",
    "ttl_seconds": 1,
    "columns": [{"name": "night", "type": "FLOAT"}],
}
MADE = {"name": "r", "features": ["amount"], "event_columns": ["amount"], "source_features": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_artifact(tmp_path / "artifact")
    return tmp_path / "artifact"


def test_scores_rows_in_float32(folder: Path) -> None:
    model = OnnxModel.load(folder)
    scores = model.score(np.array([[1, 2], [3, 4.5]]))
    assert scores.dtype == np.float32
    assert scores.tolist() == [3.0, 7.5]
    assert model.score(np.empty((0, 2))).shape == (0,)
    model.check_golden()


def test_columns_in_fortran_order_score_the_same(folder: Path) -> None:
    features = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))
    assert OnnxModel.load(folder).score(features).tolist() == [1.0, 5.0, 9.0]


@pytest.mark.parametrize("shape", [(2,), (1, 3), (1, 1)])
def test_another_shape_is_refused_with_the_names(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="takes") as error:
        OnnxModel.load(folder).score(np.zeros(shape))
    assert "amount, night" in error.value.hint


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_value_that_is_not_finite_in_float32_is_named(folder: Path, value: float) -> None:
    with pytest.raises(InputError, match="not finite: night"), np.errstate(over="ignore"):
        OnnxModel.load(folder).score(np.array([[1.0, value]]))


def test_a_missing_artifact_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        OnnxModel.load(tmp_path)


def test_a_changed_model_is_not_loaded(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"scores", b"scoreZ"))
    with pytest.raises(DataContractError, match="digest"):
        OnnxModel.load(folder)


def test_metadata_that_breaks_the_contract_are_refused(folder: Path) -> None:
    (folder / "metadata.json").write_text("{}")
    with pytest.raises(DataContractError, match=r"metadata\.json"):
        OnnxModel.load(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "needs features"),
        ({"features": {"views": [], "request_views": []}}, "do not define amount, night"),
        ({"features": {"views": [VIEW], "request_views": [MADE]}}, "as many events and batch rows"),
    ],
)
def test_artifacts_of_version_2_hold_their_definitions(folder: Path, fields: dict[str, Any], said: str) -> None:
    path = folder / "metadata.json"
    old = json.loads(path.read_text())
    assert OnnxModel.load(folder).metadata.features is None
    path.write_text(json.dumps(old | {"schema_version": 2} | fields))
    with pytest.raises(DataContractError, match=said):
        OnnxModel.load(folder)


def test_golden_rows_that_are_not_reproduced_are_told(tmp_path: Path) -> None:
    make_artifact(tmp_path / "artifact", golden_score=3.1)
    with pytest.raises(DataContractError, match=r"differ by 0\.1"):
        OnnxModel.load(tmp_path / "artifact").check_golden()


def test_an_artifact_is_replaced_whole(folder: Path) -> None:
    (folder / "left-over").touch()
    metadata = OnnxModel.load(folder).metadata
    write_artifact(folder, (folder / "model.onnx").read_bytes(), metadata)
    assert sorted(path.name for path in folder.iterdir()) == ["metadata.json", "model.onnx"]
    assert [path.name for path in folder.parent.iterdir()] == ["artifact"]


def reading(location: str, constant: bool) -> bytes:
    """A model whose weights are bytes of the file `location`, in an initializer or in a constant of the graph."""
    allowed = "secret.bin"  # onnx itself writes no other.
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 64], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=allowed)
    weights.external_data.add(key="length", value="512")
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    nodes = [
        helper.make_node("MatMul", [ONNX_INPUT, "w"], ["products"]),
        helper.make_node("ReduceSum", ["products", "axis"], [ONNX_OUTPUT], keepdims=0),
    ]
    if constant:
        nodes = [helper.make_node("Constant", [], ["w"], value=weights), *nodes]
    model = onnx.load_model_from_string(serialise(nodes, [axis] if constant else [weights, axis], 2))
    [tensor] = [model.graph.node[0].attribute[0].t] if constant else model.graph.initializer[:1]
    tensor.external_data[0].value = location
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("where", ["secret.bin", "../secret.bin", "{folder}/secret.bin"])
def test_a_model_cannot_read_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, constant: bool) -> None:
    (tmp_path / "inner").mkdir()
    for folder in (tmp_path, tmp_path / "inner"):
        (folder / "secret.bin").write_bytes(np.arange(128, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path / "inner")
    content = reading(where.format(folder=tmp_path), constant)
    metadata = make_artifact(tmp_path / "artifact").model_copy(update={"digest": digest(content)})
    write_artifact(tmp_path / "artifact", content, metadata)
    with pytest.raises(DataContractError, match="cannot be loaded"):
        OnnxModel.load(tmp_path / "artifact")


@pytest.mark.parametrize("task", [None, {"kind": "regression"}])
def test_an_artifact_cannot_allow_itself_other_scores(tmp_path: Path, task: dict[str, Any] | None) -> None:
    metadata = make_artifact(tmp_path / "artifact", golden_score=3.01)
    golden = metadata.golden.model_copy(update={"tolerance": 1e9})
    changed = metadata.model_copy(update={"golden": golden, "task": task or metadata.task})
    model = OnnxModel(changed, OnnxModel.load(tmp_path / "artifact")._scorer)
    with pytest.raises(DataContractError, match=r"golden rows differ by 0\.01"):
        model.check_golden()


@pytest.mark.parametrize("attack", [giant_fill, giant_initializer])
def test_a_model_that_asks_for_much_memory_is_refused_before_it_gets_it(folder: Path, attack: Any) -> None:
    content = attack(2)
    assert len(content) < 400
    replace_model(folder, content)
    with pytest.raises(DataContractError, match=r"too large: its constants take 22,888 MiB") as error:
        OnnxModel.load(folder)
    assert "CT_ARTIFACT_MAXIMUM_MIB" in error.value.hint


@pytest.mark.parametrize("name", ["model.onnx", "metadata.json"])
def test_a_large_file_is_not_read(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.truncate(3 * 2**40)  # It takes no place on disk, and would not fit into memory.
    with pytest.raises(DataContractError, match=rf"{name} takes 3,145,728.0 MiB, and an artifact may take 2 MiB"):
        OnnxModel.load(folder, maximum_mib=2)


def test_a_damaged_graph_is_refused(folder: Path) -> None:
    replace_model(folder, (folder / "model.onnx").read_bytes()[:-9])
    with pytest.raises(DataContractError, match="cannot be read: the file is damaged"):
        OnnxModel.load(folder)
