"""Text features and missing numbers from the dataset to the artifact: learned lists, encoded rows, proven parity."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cases import others_in_ci
from tests.steps.training_rows import NAMES, write_dataset
from training.adapters.datasets import DEFINITIONS, Dataset
from training.adapters.onnx_model import OnnxModel
from training.contract.errors import DataContractError, InputError
from training.contract.feature_definitions import FeatureDefinitions
from training.contract.messages import DatasetResult, TrainInputs
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.domain.encoding import most_frequent
from training.settings import Settings
from training.steps import train

TEXTS = [*NAMES, "carrier", "speed"]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Settings:
    place = tmp_path_factory.mktemp("texts")
    shutil.copy(mlflow_database, place)
    return Settings(home=place / "home", tracking_uri=f"sqlite:///{place}/mlflow.db")


@pytest.fixture(scope="module")
def uri(at: Settings) -> str:
    """A dataset with a text and a number that may be missing. The holdout has a carrier that training has not."""
    folder = at.home.parent / "dataset"
    write_dataset(folder)
    listed: tuple[str, ...] = ()
    for name in ("train", "holdout"):
        table = pq.read_table(folder / f"{name}.parquet")
        random = np.random.default_rng(len(name))
        kinds = ["AA", "AA", "UA", None] + (["ZZ"] if name == "holdout" else [])
        carrier = [kinds[i] for i in random.integers(0, len(kinds), len(table))]
        speed = np.where(random.random(len(table)) < 0.2, np.nan, random.normal(size=len(table)))
        # A column of type `category` is dictionary-encoded.
        table = table.append_column("carrier", pa.array(carrier, pa.string()).dictionary_encode())
        pq.write_table(table.append_column("speed", pa.array(speed, pa.float64())), folder / f"{name}.parquet")
        listed = listed or most_frequent(carrier, 10)
    pq.write_table(pq.read_table(folder / "train.parquet", columns=TEXTS), folder / "reference.parquet")
    definitions = FeatureDefinitions.model_validate_json((folder / DEFINITIONS).read_text())
    changes = {"event_features": ("carrier", "speed"), "categories": {"carrier": listed}}
    (folder / DEFINITIONS).write_text(definitions.model_copy(update=changes).model_dump_json())
    manifest = DatasetResult.model_validate_json((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(manifest.model_copy(update={"feature_names": TEXTS}).model_dump_json())
    return str(folder)


@pytest.mark.parametrize("estimator", others_in_ci(["logistic_regression", "lightgbm"]))
def test_a_model_learns_from_them_and_its_artifact_encodes_them(uri: str, at: Settings, estimator: str) -> None:
    inputs = TrainInputs(model="card_fraud", estimator=estimator, dataset_uri=uri, seed=1, reason="test")
    model = OnnxModel.load(Path(train.run(inputs, at).artifact_uri))
    model.check_golden()
    columns = {column.name: column for column in model.metadata.columns}
    assert columns["carrier"].categories == ("AA", "UA")
    assert columns["speed"].may_be_missing
    assert not columns["amount"].may_be_missing
    golden = np.asarray(model.metadata.golden.features, np.float32)
    assert np.isnan(golden[:, -2:]).any()
    holdout = Dataset(uri, load_model_spec("card_fraud")).holdout().features(model.metadata.columns)
    assert set(holdout[:, -2][~np.isnan(holdout[:, -2])]) == {0, 1, 2}
    carriers = pq.read_table(f"{uri}/holdout.parquet")["carrier"]
    assert np.isnan(holdout[:, -2]).sum() == carriers.null_count > 0
    assert np.isfinite(model.score(holdout)).all()
    holdout[0, 0] = np.nan
    with pytest.raises(InputError, match="not finite: amount"):
        model.score(holdout)


def test_a_number_that_is_never_missing_is_refused_where_it_is(uri: str, at: Settings, tmp_path: Path) -> None:
    copied = shutil.copytree(uri, tmp_path / "copied")
    definitions = FeatureDefinitions.model_validate_json((copied / DEFINITIONS).read_text())
    views = definitions.views
    assert views
    text = definitions.model_dump_json().replace('"event_features":["carrier","speed"]', '"event_features":["carrier"]')
    (copied / DEFINITIONS).write_text(text)
    manifest = DatasetResult.model_validate_json((copied / "dataset.json").read_text())
    moved = {
        "dataset_id": "copied",
        "uri": str(copied),
        "train": manifest.train.model_copy(update={"uri": str(copied / "train.parquet")}),
        "holdout": manifest.holdout.model_copy(update={"uri": str(copied / "holdout.parquet")}),
    }
    (copied / "dataset.json").write_text(manifest.model_copy(update=moved).model_dump_json())
    inputs = TrainInputs(model="card_fraud", estimator="lightgbm", dataset_uri=str(copied), seed=1, reason="test")
    with pytest.raises(DataContractError, match=r"not finite: speed \(\d+ rows\)"):
        train.run(inputs, at)


def test_calibration_is_part_of_the_artifact(uri: str, at: Settings, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    text = (MODELS_DIR / "card_fraud.yaml").read_text()
    (models / "card_fraud.yaml").write_text(text.replace("training:\n", "training:\n  calibration: sigmoid\n", 1))
    inputs = TrainInputs(model="card_fraud", estimator="logistic_regression", dataset_uri=uri, seed=1, reason="test")
    plain, calibrated = (train.run(inputs, at), train.run(inputs, at.model_copy(update={"models_dir": models})))
    assert calibrated.digest != plain.digest
    model = OnnxModel.load(Path(calibrated.artifact_uri))
    model.check_golden()
    assert b"calibration_slope" in Path(calibrated.artifact_uri, "model.onnx").read_bytes()
