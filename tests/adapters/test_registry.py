"""The registry and the runs, against MLflow as a file and as a server with proxied artifacts."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from requests import ConnectionError as RequestsConnectionError

from testing.gate import Gate
from testing.ports import free_port
from testing.serving_stack import mlflow_server
from testing.waiting import eventually
from tests.adapters.tiny_artifact import WEEK, make_artifact
from tests.cases import others_in_ci
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import SERVED, ModelState, Registry, Runs
from training.adapters.registry.connection import contract_errors
from training.adapters.registry.retention import delete_artifacts
from training.contract.errors import DataContractError, InputError, StepError, TransientError
from training.contract.messages import DatasetResult, Split

_names = count()


@dataclass(frozen=True)
class World:
    """A model name of its own at one of the two kinds of MLflow."""

    uri: str
    model: str
    folder: Path

    @property
    def registry(self) -> Registry:
        return Registry(self.uri)

    @property
    def runs(self) -> Runs:
        return Runs(self.uri, self.model, str(self.folder / "artifacts"))

    def trained(self, fingerprint: str = "f") -> str:
        """A finished run with an artifact. Returns its id."""
        artifact = self.folder / f"made-{fingerprint}"
        make_artifact(artifact, self.model)
        run = self.runs.begin("logistic_regression", fingerprint, {"reason": "test"})
        self.runs.log_files(run.run_id, artifact, SERVED)
        self.runs.log_model(run, artifact, np.ones((5, 2), dtype=np.float32), ["onnxruntime"])
        self.runs.finish(run, {"done": True})
        return run.run_id

    def registered(self, fingerprint: str = "f"):  # type: ignore[no-untyped-def]
        digest = make_artifact(self.folder / "digest", self.model).digest
        return self.registry.register(self.model, self.trained(fingerprint), digest, {"verdict": "promote"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(mlflow_database, folder)
    with mlflow_server(folder) as running:
        eventually(running.answers)
        yield running.url


@pytest.fixture(params=others_in_ci(["file", "server"]))
def world(request: pytest.FixtureRequest, tmp_path: Path, mlflow_database: Path) -> World:
    model = f"tiny_{next(_names)}"
    if request.param == "server":
        return World(request.getfixturevalue("server"), model, tmp_path)
    shutil.copy(mlflow_database, tmp_path)
    return World(f"sqlite:///{tmp_path}/mlflow.db", model, tmp_path)


def test_nothing_is_registered_at_first(world: World) -> None:
    assert world.registry.by_alias(world.model, "champion") is None
    assert world.registry.versions(world.model) == []
    with pytest.raises(InputError, match="There is no registered model"):
        world.registry.get(world.model, 1)
    world.registry.remove_alias(world.model, "champion")


def test_a_run_becomes_one_version_however_often(world: World) -> None:
    first = world.registered()
    again = world.registry.register(world.model, first.run_id, first.digest, {"forced": "true"})
    other = world.registered("g")
    assert (first.version, again.version, other.version) == (1, 1, 2)
    assert [version.version for version in world.registry.versions(world.model)] == [1, 2]
    with pytest.raises(InputError, match=f"{world.model} has no version 3"):
        world.registry.get(world.model, 3)


def test_aliases_move(world: World) -> None:
    first, second, registry = world.registered(), world.registered("g"), world.registry
    registry.set_alias(world.model, "champion", first.version)
    registry.set_alias(world.model, "champion", second.version)
    registry.set_alias(world.model, "previous", first.version)
    found = registry.by_alias(world.model, "champion")
    assert found is not None
    assert (found.version, found.run_id, found.digest) == (2, second.run_id, second.digest)
    assert [set(version.aliases) for version in registry.versions(world.model)] == [{"previous"}, {"champion"}]
    registry.remove_alias(world.model, "previous")
    assert registry.by_alias(world.model, "previous") is None
    assert registry.get(world.model, 1).aliases == frozenset()


def test_artifacts_of_runs_that_nobody_registered_are_deleted_where_they_are(world: World) -> None:
    """Also behind a server, which alone knows where an `mlflow-artifacts:` URI leads."""
    kept, other = world.registered().run_id, world.trained("g")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert delete_artifacts(world.uri, world.model, tomorrow, dry_run=True) == [other]
    assert delete_artifacts(world.uri, world.model, tomorrow, dry_run=False) == [other]
    client = MlflowClient(world.uri)
    assert client.list_artifacts(kept)
    assert not client.list_artifacts(other)


def test_the_states_of_several_models_are_read_at_once(world: World) -> None:
    version = world.registered()
    world.registry.set_alias(world.model, "champion", version.version)
    one, none = world.registry.state(world.model), f"{world.model}_absent"
    assert one.aliases == {"champion": version.version}
    assert world.registry.states([world.model, none]) == {world.model: one, none: ModelState()}
    assert world.registry.states([world.model]) == {world.model: one}
    assert world.registry.states([]) == {}


def test_download_brings_the_whole_artifact_once(world: World) -> None:
    version, folder = world.registered(), world.folder / "versions" / "1"
    assert world.registry.download(version, folder) == folder
    OnnxModel.load(folder).check_golden()
    written = (folder / "model.onnx").stat().st_mtime_ns
    world.registry.download(version, folder)
    assert (folder / "model.onnx").stat().st_mtime_ns == written
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_download_replaces_a_broken_copy(world: World) -> None:
    version, folder = world.registered(), world.folder / "copy"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"half")
    OnnxModel.load(world.registry.download(version, folder)).check_golden()


def test_download_refuses_what_was_not_registered(world: World) -> None:
    run_id = world.trained()
    version = world.registry.register(world.model, run_id, "0" * 64, {})
    with pytest.raises(DataContractError, match="is not valid: its digest"):
        world.registry.download(version, world.folder / "copy")
    assert not (world.folder / "copy").exists()


def test_download_refuses_a_version_without_a_digest(world: World) -> None:
    version = world.registered()
    MlflowClient(world.uri).delete_model_version_tag(world.model, str(version.version), "digest")
    with pytest.raises(DataContractError, match="has no tag digest"):
        world.registry.download(world.registry.get(world.model, version.version), world.folder / "copy")


def test_download_refuses_a_large_artifact_before_it_takes_the_disk(world: World) -> None:
    artifact = world.folder / "large"
    digest = make_artifact(artifact, world.model).digest
    with (artifact / "metadata.json").open("ab") as file:
        file.write(b" " * 2**21)
    run = world.runs.begin("logistic_regression", "large", {})
    world.runs.log_files(run.run_id, artifact, "served")
    version, folder = world.registry.register(world.model, run.run_id, digest, {}), world.folder / "copy"
    with pytest.raises(DataContractError, match=r"served/metadata.json of run .* takes 2\.0 MiB"):
        world.registry.download(version, folder, maximum_mib=1)
    assert not folder.exists()
    world.registry.download(version, folder)


def test_download_refuses_other_files(world: World) -> None:
    version = world.registered()
    (world.folder / "other.bin").write_bytes(b"other")
    MlflowClient(world.uri).log_artifact(version.run_id, str(world.folder / "other.bin"), "served")
    with pytest.raises(DataContractError, match=r"served/other\.bin, which is not part of an artifact"):
        world.registry.download(version, world.folder / "copy")


def test_a_finished_run_is_found_by_its_fingerprint(world: World) -> None:
    run_id = world.trained()
    again = world.runs.begin("logistic_regression", "f", {})
    assert (again.run_id, again.result) == (run_id, {"done": True})
    assert world.runs.begin("logistic_regression", "other", {}).run_id != run_id


def test_an_unfinished_run_is_taken_up_and_nothing_doubles(world: World) -> None:
    artifact = world.folder / "made"
    make_artifact(artifact, world.model)
    ids = set()
    for _ in range(2):
        run = world.runs.begin("mlp", "f", {"reason": "test"})
        assert run.result is None
        world.runs.log(run, {"depth": 3}, {"roc_auc": 0.9})
        world.runs.log_dataset(run, dataset())
        world.runs.log_model(run, artifact, np.ones((5, 2), dtype=np.float32), ["onnxruntime"])
        world.runs.fail(run)
        ids.add(run.run_id)
    (run_id,) = ids
    client = world.runs._client
    logged = client.get_run(run_id)
    assert logged.data.params == {"depth": "3"}
    assert len(client.get_metric_history(run_id, "roc_auc")) == 1
    assert [each.dataset.name for each in logged.inputs.dataset_inputs] == [
        f"{world.model} training",
        f"{world.model} holdout",
    ]
    assert {tag.key: tag.value for tag in logged.inputs.dataset_inputs[0].tags}["table.events"] == "3"
    assert len(client.search_logged_models([logged.info.experiment_id])) == 1


def test_a_version_loads_by_mlflows_own_means(world: World) -> None:
    import mlflow

    world.registry.set_alias(world.model, "champion", world.registered().version)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(world.uri)
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/{world.model}@champion")
        scores = loaded.predict({"features": np.array([[1, 2]], dtype=np.float32)})["scores"]
    finally:
        mlflow.set_tracking_uri(before)
    assert scores.tolist() == [3.0]
    assert loaded.metadata.signature is not None


def test_a_server_that_is_down_is_transient_and_quick() -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(TransientError, match="did not answer"):
        Registry(uri).by_alias("tiny", "champion")
    assert time.monotonic() - started < 20


def test_a_database_that_does_not_answer_is_transient() -> None:
    """MLflow itself tries a database for two minutes before it says so."""
    from sqlalchemy.exc import OperationalError

    with pytest.raises(TransientError, match="did not answer"), contract_errors("postgresql://db.invalid/mlflow"):
        raise OperationalError("SELECT 1", None, Exception("could not translate host name"))


def test_a_server_whose_name_has_no_address_is_transient() -> None:
    with pytest.raises(TransientError, match="did not answer"):
        Registry("http://mlflow.invalid:5000").by_alias("tiny", "champion")


def test_what_mlflow_refuses_is_not_called_unreachable(world: World) -> None:
    with pytest.raises(StepError, match="refused") as error:
        world.registry.set_alias(world.model, "champion", 1)
    assert not isinstance(error.value, TransientError)


def dataset() -> DatasetResult:
    split = Split(days=WEEK, uri="rows.parquet", rows=10, counts={"positive": 1})
    return DatasetResult(
        dataset_id="0123456789abcdef",
        uri="folder",
        as_of=WEEK.end + timedelta(days=14),
        feature_service="tiny",
        feature_names=["amount", "night"],
        train=split,
        holdout=split,
        seed=0,
        table_versions={"events": 3, "labels": 2},
    )


def test_what_creates_is_sent_once_and_looked_for_by_the_next_try(
    tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `test_a_lost_answer_creates_nothing_twice`, without a server: the answer gets lost in MLflow's client."""
    shutil.copy(mlflow_database, tmp_path)
    world = World(f"sqlite:///{tmp_path}/mlflow.db", "tiny", tmp_path)
    retries = list[str | None]()

    def lose_answer(method: str) -> None:
        create = getattr(MlflowClient, method)

        def lost(*given: Any, **named: Any) -> None:
            create(*given, **named)
            retries.append(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES"))
            monkeypatch.setattr(MlflowClient, method, create)
            raise RequestsConnectionError("Remote end closed connection without response")

        monkeypatch.setattr(MlflowClient, method, lost)

    lose_answer("create_run")
    with pytest.raises(TransientError, match="did not answer"):
        world.trained()
    run_id = world.trained()
    digest = make_artifact(tmp_path / "digest", world.model).digest
    lose_answer("create_model_version")
    with pytest.raises(TransientError, match="did not answer"):
        world.registry.register(world.model, run_id, digest, {})
    assert retries == ["0", "0"]
    assert world.registry.register(world.model, run_id, digest, {}).version == 1
    assert [version.version for version in world.registry.versions(world.model)] == [1]
    client = MlflowClient(world.uri, world.uri)
    experiment = client.get_experiment_by_name(world.model)
    assert experiment is not None
    assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == [run_id]


@pytest.mark.ci
def test_a_lost_answer_creates_nothing_twice(server: str, tmp_path: Path) -> None:
    gate = Gate(int(server.rpartition(":")[2]))
    gate.open()
    world = World(gate.url, f"tiny_{next(_names)}", tmp_path)
    try:
        gate.lose_answer(b"/runs/create")
        with pytest.raises(TransientError, match="did not answer"):
            world.trained()
        run_id = world.trained()
        digest = make_artifact(tmp_path / "digest", world.model).digest
        gate.lose_answer(b"/model-versions/create")
        with pytest.raises(TransientError, match="did not answer"):
            world.registry.register(world.model, run_id, digest, {})
        assert gate.lost == 2
        assert world.registry.register(world.model, run_id, digest, {}).version == 1
        assert [version.version for version in world.registry.versions(world.model)] == [1]
        client = MlflowClient(server, server)
        experiment = client.get_experiment_by_name(world.model)
        assert experiment is not None
        assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == [run_id]
    finally:
        gate.close()
