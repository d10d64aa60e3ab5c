"""Backups of a small real world: nothing that they hold names what they lack, and the loop goes on after a restore."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from tests.adapters.tiny_artifact import make_artifact
from tests.steps.monitored_model import DRIFTED, MODEL, SOURCE, START, build, land
from training import storage
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, Registry
from training.backup.__main__ import main
from training.backup.making import make_backup
from training.backup.restoring import restore
from training.backup.verifying import problems
from training.contract.base import Days
from training.contract.errors import DataContractError, ExitCode, InputError
from training.contract.messages import DatasetInputs, FeaturesInputs, TrainInputs
from training.domain.monitoring import MonitoringRun, TableRead
from training.settings import Settings, variable
from training.steps import dataset, features, train


def with_databases(settings: Settings, folder: Path) -> Settings:
    """The settings of a world whose MLflow database and artifacts lie in `folder`; an Airflow database as well."""
    with closing(sqlite3.connect(folder / "airflow.db")) as database, database:
        database.execute("CREATE TABLE dag_run (run_id TEXT)")
        database.execute("INSERT INTO dag_run VALUES ('first')")
    given: dict[str, Any] = {
        "backup_uri": str(folder / "backups"),
        "backup_registry_database": SecretStr(f"sqlite:///{folder}/mlflow.db"),
        "backup_airflow_database": SecretStr(f"sqlite:///{folder}/airflow.db"),
        "backup_artifacts_uri": str(folder / "artifacts"),
    }
    return settings.model_copy(update=given)


class SmallLoop:
    """Each `turn` lands a partition, computes a feature table from it, registers a champion, predicts, and enters the
    rollout into the ledger: what the steps do, with a tiny artifact."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        from mlflow import MlflowClient

        self.settings, self.lake = settings, Lake(settings.lake, SOURCE, MODEL)
        self.registry, self.ledger = Registry(settings.tracking_uri), Ledger(settings.ledger)
        self._client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
        self._experiment = self._client.create_experiment("tiny", artifact_location=settings.artifacts)
        self._served = folder / "served"
        self._digest = make_artifact(self._served, MODEL).digest
        self.turns = 0

    def turn(self) -> None:
        self.turns += 1
        rows = pa.table({"n": [self.turns], "partition": [str(self.turns)]})
        where = f"partition = '{self.turns}'"
        landed = self.lake.replace("events", rows, where, ["partition"])
        computed = self.lake.replace("customer_features", rows, where, ["partition"], {"events": landed})
        run = self._client.create_run(self._experiment).info.run_id
        self._client.log_artifacts(run, str(self._served), "served")
        tags = {"table.events": str(landed), "table.customer_features": str(computed)}
        version = self.registry.register(MODEL, run, self._digest, tags).version
        scored = self.lake.replace(PREDICTIONS, rows, where, ["partition"])
        body = {"version": version, "snapshot": {"table_versions": {"events": landed, PREDICTIONS: scored}}}
        self.ledger.append("rollout", MODEL, body, str(version))
        self.registry.set_alias(MODEL, CHAMPION, version)


@pytest.fixture
def loop(settings: Settings, tmp_path: Path, mlflow_database: Path) -> SmallLoop:
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    made = SmallLoop(with_databases(settings, tmp_path), tmp_path)
    made.turn()
    return made


def destroy(settings: Settings, folder: Path) -> None:
    shutil.rmtree(settings.home)
    for name in ("mlflow.db", "airflow.db"):
        (folder / name).unlink()
    shutil.rmtree(folder / "artifacts", ignore_errors=True)


def reopened(folder: Path) -> Registry:
    """The registry of the restored file. Under the path as before, this process has the deleted one open."""
    return Registry(f"sqlite:///{folder}/./mlflow.db")


@pytest.mark.ci
def test_a_backup_made_while_the_loop_writes_names_nothing_that_it_lacks(loop: SmallLoop, tmp_path: Path) -> None:
    """After each part of the backup the loop makes a whole turn: whatever is copied later is newer."""
    uri = make_backup(loop.settings, lambda part, count: loop.turn())
    assert loop.turns > 8
    assert Path(loop.settings.backups).stat().st_mode & 0o077 == 0
    assert problems(uri) == []
    destroy(loop.settings, tmp_path)
    restore(uri, loop.settings)
    registry = reopened(tmp_path)
    entries, champion = Ledger(loop.settings.ledger).entries(MODEL), registry.by_alias(MODEL, CHAMPION)
    assert champion is not None
    assert entries[-1].body["version"] <= champion.version < loop.turns
    assert registry.download(champion, tmp_path / "downloaded")


def test_a_table_version_that_the_backup_lacks_is_named(loop: SmallLoop) -> None:
    body = {"version": 7, "snapshot": {"table_versions": {"events": 99}}}
    loop.ledger.append("rollout", MODEL, body, "7")
    read = MonitoringRun(as_of=START, champion_version=1, tables={"events": TableRead(number=97, commit="")})
    loop.ledger.append("monitoring_run", MODEL, read.model_dump(mode="json"), "1")
    loop.registry.tag(MODEL, 1, "table.events", "98")
    found = "\n".join(problems(make_backup(loop.settings)))
    assert "names version 99 of table events" in found
    assert "names version 98 of table events" in found
    assert found.count("which MLflow's database lacks") == 1
    assert "names version 7, which MLflow's database lacks" in found


def test_an_empty_last_commit_is_named(loop: SmallLoop) -> None:
    loop.turn()
    log = Path(loop.lake.uri("events"), "_delta_log")
    max(log.glob("*.json")).write_bytes(b"")
    [found] = [each for each in problems(make_backup(loop.settings)) if "is empty" in each]
    assert "events/_delta_log" in found


def first(uri: str, wanted: Callable[[str], bool]) -> Path:
    return next(Path(uri, path) for path in storage.tree(uri) if wanted(path))


@pytest.mark.parametrize(
    "ending", ["00000000.json", "model.onnx", ".parquet", "00000000000000000000.json", "registry/database"]
)
def test_what_is_missing_or_altered_is_named(loop: SmallLoop, ending: str) -> None:
    uri = make_backup(loop.settings)
    path = first(uri, lambda path: path.endswith(ending))
    name, content = path.relative_to(uri).as_posix(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert problems(uri) == [f"{name} was altered"]
    path.unlink()
    assert problems(uri) == [f"{name} is missing"]
    with pytest.raises(DataContractError, match="is missing"):
        restore(uri, loop.settings)
    path.write_bytes(content)
    path.with_name("more").touch()
    assert "was added" in problems(uri)[0]


def test_an_unfinished_backup_is_none(
    loop: SmallLoop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(part: str, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_backup(loop.settings, killed)
    for name in ("home", "backup_uri"):
        monkeypatch.setenv(variable(name), str(getattr(loop.settings, name)))
    assert main(["verify"]) == ExitCode.BAD_INPUT
    (unfinished,) = os.listdir(loop.settings.backups)
    assert main(["verify", unfinished]) == ExitCode.BAD_INPUT
    assert f"no finished backup {unfinished}" in (told := capsys.readouterr().err)
    assert "Did you mean" not in told


def test_a_backup_made_after_the_clock_was_set_back_has_the_last_name(loop: SmallLoop) -> None:
    future = Path(make_backup(loop.settings))
    future.rename(future.with_name("29991231T235959.000000Z"))
    assert Path(make_backup(loop.settings)).name == "29991231T235959.000001Z"


@pytest.mark.parametrize(
    "after", [("lake", "registry"), pytest.param(("artifacts", "ledger", "airflow"), marks=pytest.mark.ci)], ids=str
)
def test_a_restore_overwrites_no_other_state_and_continues_an_interrupted_one(
    loop: SmallLoop, tmp_path: Path, after: tuple[str, ...]
) -> None:
    uri = make_backup(loop.settings)
    loop.turn()
    with pytest.raises(InputError, match="another state"):
        restore(uri, loop.settings)
    assert len(loop.ledger.entries(MODEL)) == 2
    for killed_after in after:
        destroy(loop.settings, tmp_path)

        def kill(part: str, count: int, after: str = killed_after) -> None:
            if part == after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            restore(uri, loop.settings, kill)
        restore(uri, loop.settings)
        assert len(Ledger(loop.settings.ledger).entries(MODEL)) == 1
        assert problems(make_backup(loop.settings)) == []


@pytest.mark.ci
def test_a_destroyed_world_is_restored_and_the_loop_goes_on(tmp_path: Path, mlflow_database: Path) -> None:
    shutil.copy(mlflow_database, tmp_path)
    world = build(tmp_path)
    settings = with_databases(world.settings, tmp_path)
    experiment = settings.home / "mlflow"
    settings = settings.model_copy(update={"backup_artifacts_uri": str(experiment)})
    Ledger(settings.ledger).append("rollout", MODEL, {"version": world.champion.version}, "1")
    kept: dict[str, Any] = {
        "rows": world.lake.scan("events").count_rows(),
        "versions": world.lake.versions("events", "labels", "customer_features", "terminal_features"),
        "ledger": Ledger(settings.ledger).entries(MODEL),
    }
    uri = make_backup(settings)
    assert problems(uri) == []
    destroy(settings, tmp_path)
    restore(uri, settings)
    lake = Lake(settings.lake, SOURCE, MODEL)
    assert lake.scan("events").count_rows() == kept["rows"]
    assert lake.versions(*kept["versions"]) == kept["versions"]
    assert Ledger(settings.ledger).entries(MODEL) == kept["ledger"]
    settings = settings.model_copy(update={"tracking_uri": f"sqlite:///{tmp_path}/./mlflow.db"})
    registry = reopened(tmp_path)
    champion = registry.by_alias(MODEL, CHAMPION)
    assert champion is not None
    assert (champion.version, champion.digest) == (world.champion.version, world.champion.digest)
    # The loop goes on: more days, their features, a dataset, a fit, a version that follows.
    days = Days(start=START, end=DRIFTED + timedelta(days=7))
    lake = land(settings, days)
    versions = lake.versions("events", "labels")
    features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=versions), settings)
    made = dataset.run(DatasetInputs(model=MODEL, as_of=DRIFTED), settings)
    fit = TrainInputs(model=MODEL, estimator="logistic_regression", dataset_uri=made.uri, seed=made.seed)
    trained = train.run(fit, settings)
    version = registry.register(MODEL, trained.run_id, trained.digest, {})
    assert version.version == world.champion.version + 1
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        assert database.execute("SELECT run_id FROM dag_run").fetchall() == [("first",)]
