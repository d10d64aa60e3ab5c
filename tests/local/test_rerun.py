"""`python -m local rerun` on real state: what the task's step was given, on a copy, and nothing else changes."""

import hashlib
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from local.generator import Generator
from local.state_copy import copy_state
from local.step_call import call_in, newest_failed
from tests.steps.ingest_helpers import FIRST, SOURCE, Deliveries
from tests.steps.training_rows import write_dataset
from training.adapters.lake import Lake
from training.adapters.registry import Registry
from training.contract.errors import InputError
from training.contract.messages import IngestInputs
from training.contract.model_spec import MODELS_DIR
from training.contract.steps import distributed_command, step_command
from training.settings import ROOT, Settings

MODEL, RUN = "card_fraud", "manual__2026-01-06T00:00:00+00:00_a1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "state")


def python(
    settings: Settings, *arguments: str, typed: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """A program of ours with the settings of the stack."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CT_")}
    given = {"CT_HOME": str(settings.home), "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=kept | given, cwd=ROOT, input=typed, capture_output=True, text=True, timeout=500)


def run_task(
    settings: Settings,
    dag: str,
    step: str,
    inputs: Mapping[str, Any],
    number: int = 1,
    index: int | None = None,
    **environment: str,
) -> int:
    """Run a step as a launcher does, and write the log that Airflow would. Returns the step's exit code."""
    mapped = step if index is None else f"{step}-{index}"
    argv = step_command(step, inputs, f"{settings.results}/{dag}/{RUN}/{mapped}/{number}.json")
    done = python(settings, *argv, **environment)
    write_log(settings, dag, step, number, index, "Starting", shlex.join(["python", *argv]), *done.stderr.splitlines())
    return done.returncode


def write_log(settings: Settings, dag: str, task: str, number: int, index: int | None, *events: str) -> Path:
    folder = settings.home / "airflow" / "logs" / f"dag_id={dag}" / f"run_id={RUN}" / f"task_id={task}"
    folder = folder if index is None else folder / f"map_index={index}"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"timestamp": "2026-01-06T00:00:00Z", "level": "info", "event": each}) for each in events]
    log = folder / f"attempt={number}.log"
    log.write_text("\n".join(lines) + "\n")
    stamp = 1_800_000_000 + number
    os.utime(log, (stamp, stamp))
    return log


def contents(folder: Path) -> dict[str, str]:
    """Path → hash of each file below `folder`. SQLite's shared memory, which readers write to, is no content."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }


def delivered(settings: Settings) -> IngestInputs:
    """A day in the lake, and another in landing that lacks a column."""
    deliveries = Deliveries(settings)
    deliveries.events(0)
    rows = Generator(customers=100, terminals=200).events(FIRST.replace(day=6))
    broken = deliveries.land(rows, "2026-01-06")
    pq.write_table(rows.drop_columns("amount"), broken.uri)
    return broken


@pytest.mark.long
def test_a_step_that_data_failed_runs_again_on_a_copy(settings: Settings, tmp_path: Path) -> None:
    inputs = delivered(settings)
    dag = f"{SOURCE}_data"
    assert run_task(settings, dag, "ingest", inputs.model_dump(mode="json")) == 65
    before = contents(settings.home)
    again = ("-m", "local", "rerun", "--task", f"{dag} ingest")

    done = python(settings, *again)
    assert done.returncode == 65, done.stderr
    assert "It failed with DataContractError" in done.stdout
    assert "amount" in done.stderr
    assert contents(settings.home) == before
    (copy,) = (tmp_path / "state-rerun").iterdir()
    assert json.loads((copy / "report.json").read_text())["error"]["type"] == "DataContractError"

    done = python(settings, *again, "--in-debugger", "--copy", str(tmp_path / "debugged"), typed="c\nq\n")
    assert "(Pdb)" in done.stdout
    assert "ingest ended on the copy" in done.stdout
    assert contents(settings.home) == before

    # The file is corrected. The step puts it into the lake of the copy, and into no other.
    rows = Generator(customers=100, terminals=200).events(FIRST.replace(day=6))
    pq.write_table(rows, inputs.uri)
    before = contents(settings.home)
    done = python(settings, *again, "--copy", str(tmp_path / "second"))
    assert done.returncode == 0, done.stderr
    assert contents(settings.home) == before
    live, copied = Lake(settings.lake, SOURCE, MODEL), Lake(str(tmp_path / "second" / "lake"), SOURCE, MODEL)
    assert copied.version("events") == (live.version("events") or 0) + 1
    assert copied.scan("events").to_table().num_rows > live.scan("events").to_table().num_rows


@pytest.mark.long
def test_a_step_of_a_cluster_takes_the_file_from_the_landing_folder_here(settings: Settings, tmp_path: Path) -> None:
    inputs = delivered(settings).model_dump(mode="json")
    inputs["uri"] = f"s3://bucket/in/{SOURCE}/events/{Path(inputs['uri']).name}"
    log = tmp_path / "attempt=1.log"
    command = shlex.join(["python", *step_command("ingest", inputs, "s3://bucket/work/results/d/r/ingest/1.json")])
    log.write_text(json.dumps({"event": command}))
    done = python(settings, "-m", "local", "rerun", "--log", str(log), "--copy", str(tmp_path / "copy"))
    assert done.returncode == 65, done.stderr
    assert f"{settings.landing}/{SOURCE}/events/2026-01-06.parquet" in done.stderr


def broken_model(folder: Path) -> Path:
    folder.mkdir()
    spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    spec["training"]["estimators"]["hist_gradient_boosting"] = {"max_iterations": 20}
    (folder / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
    return folder


@pytest.mark.long
def test_a_step_that_its_spec_failed_trains_into_a_private_mlflow(
    settings: Settings, tmp_path: Path, mlflow_database: Path
) -> None:
    dataset = write_dataset(settings.home / "work" / MODEL / "datasets" / "d1")
    (settings.home / "mlflow").mkdir()
    shutil.copy(mlflow_database, settings.home / "mlflow")
    inputs = {"model": MODEL, "estimator": "hist_gradient_boosting", "dataset_uri": dataset, "seed": 1}
    inputs["parameters"] = {"max_iter": 20}
    models = str(broken_model(tmp_path / "models"))
    code = run_task(settings, f"{MODEL}_train", "train", inputs, index=1, CT_MODELS_DIR=models)
    assert code in (64, 78)
    before = contents(settings.home)

    first = tmp_path / "first"
    task = ("-m", "local", "rerun", "--task", f"{MODEL}_train train 1", "--copy", str(first))
    done = python(settings, *task)
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(settings.home) == before
    trained = json.loads((first / "report.json").read_text())["result"]
    assert Path(trained["artifact_uri"]).is_relative_to(first)
    assert json.loads((first / "inputs.json").read_text())["dataset_uri"].startswith(str(first))

    # On a copy of the copy: its registry and the artifacts behind it came along.
    challenger = {name: trained[name] for name in ("estimator", "run_id", "artifact_uri", "digest")}
    verdict = {"promote": True, "reasons": [], "primary": "pr_auc", "challenger": {}, "champion": None}
    verdict |= {"difference": None, "confidence": 0.95}
    given = {"model": MODEL, "challenger": challenger, "verdict": verdict, "champion_version": None}
    (tmp_path / "inputs.json").write_text(json.dumps(given))
    kept, second = contents(first), tmp_path / "second"
    arguments = ("--step", "register", "--inputs", f"@{tmp_path}/inputs.json", "--copy", str(second))
    done = python(Settings(home=first), "-m", "local", "rerun", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(first) == kept
    assert [each.version for each in Registry(f"sqlite:///{second}/mlflow/mlflow.db").versions(MODEL)] == [1]
    assert list((second / "mlflow" / "artifacts").rglob("model.onnx"))


def test_the_newest_failed_try_is_found(settings: Settings) -> None:
    logs, dag = settings.home / "airflow" / "logs", f"{MODEL}_train"

    def one(number: int, index: int, seed: int, status: str) -> None:
        uri = f"{settings.results}/{dag}/{RUN}/train-{index}/{number}.json"
        argv = step_command("train", {"model": MODEL, "seed": seed, "reason": "it's old"}, uri)
        write_log(settings, dag, "train", number, index, shlex.join(["python", *argv]), "train: …")
        report = {"step": "train", "status": status, "error": {"type": "E", "message": "m", "retryable": True}}
        if status == "succeeded":
            report = {"step": "train", "status": status, "result": {}}
        if status:
            Path(uri).parent.mkdir(parents=True, exist_ok=True)
            Path(uri).write_text(json.dumps(report))

    one(1, 0, seed=10, status="failed")
    one(2, 1, seed=21, status="failed")
    one(3, 1, seed=31, status="")  # killed
    one(4, 2, seed=42, status="succeeded")

    def seed(task: str) -> int:
        call = newest_failed(logs, task, settings)
        assert (call.step, call.inputs["reason"], call.work) == ("train", "it's old", settings.work)
        return int(call.inputs["seed"])

    assert seed(f"{dag} train") == 31
    assert seed(f"{dag} train 0") == 10
    assert seed(f"{dag} train {RUN} 0") == 10
    for task, expected in {
        f"{dag} train 2": "failed in its step",
        f"{dag} fit": f"{dag} train",
        dag: "<dag> <task>",
    }.items():
        with pytest.raises(InputError) as caught:
            newest_failed(logs, task, settings)
        assert expected in str(caught.value)


def test_a_log_of_a_cluster_is_read_as_its_ui_gives_it(settings: Settings, tmp_path: Path) -> None:
    inputs = {"model": MODEL, "dataset_uri": "/state/work/card_fraud/datasets/d1", "seed": 1}
    uri = f"/state/work/results/card_fraud_train/{RUN}/train-0/1.json"
    argv = distributed_command("train", inputs, uri, nodes=1, processes=2, rendezvous="")
    log = tmp_path / "log.txt"
    command = shlex.join(["python", *argv])
    log.write_text(f"[2026-01-06 00:00:00] INFO - Pod train-x: {command}\n[2026-01-06 00:00:01] INFO - can't go on\n")
    call = call_in(log, settings)
    assert (call.step, call.inputs, call.work) == ("train", inputs, "/state/work")
    assert call.with_paths({call.work: "/copy/work"}).inputs["dataset_uri"] == "/copy/work/card_fraud/datasets/d1"

    landed = {"source": SOURCE, "feed": "events", "partition": "2026-01-06"}
    for uri, landing in (
        (f"s3://bucket/in/{SOURCE}/events/2026-01-06.parquet", "s3://bucket/in"),
        ("/elsewhere/2026-01-06.parquet", ""),
    ):
        command = shlex.join(["python", *step_command("ingest", {**landed, "uri": uri}, "")])
        log.write_text(f"[2026-01-06 00:00:00] INFO - {command}\n")
        assert call_in(log, settings).landing == landing

    log.write_text("[2026-01-06 00:00:00] INFO - Task failed\n")
    with pytest.raises(InputError, match="no command of a step"):
        call_in(log, settings)


def test_what_cannot_run_on_a_copy_is_refused(settings: Settings, tmp_path: Path) -> None:
    done = python(
        settings, "-m", "local", "rerun", "--step", "rollback", "--inputs", json.dumps({"model": MODEL, "reason": "x"})
    )
    assert done.returncode == 1
    assert "waits for replicas" in done.stderr
    remote = Settings(home=settings.home, lake_uri="s3://lake")
    with pytest.raises(InputError, match="CT_LAKE_URI"):
        copy_state(remote, tmp_path / "copy", mlflow=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        copy_state(settings, tmp_path / "full", mlflow=False)
    assert not (tmp_path / "state").exists()


@pytest.fixture
def online(settings: Settings) -> Iterator[sqlite3.Connection]:
    """An online store that a program has open, with a row that is in its log only."""
    Path(settings.online).parent.mkdir(parents=True)
    with closing(sqlite3.connect(settings.online)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE rows (value INTEGER)")
        connection.execute("INSERT INTO rows VALUES (7)")
        connection.commit()
        yield connection


def test_a_database_in_use_is_copied_whole(settings: Settings, tmp_path: Path, online: sqlite3.Connection) -> None:
    before = contents(settings.home)
    copy_state(settings, tmp_path / "in use", mlflow=False)
    assert contents(settings.home) == before
    online.close()
    before = {path.name for path in Path(settings.online).parent.iterdir()}
    copy_state(settings, tmp_path / "closed", mlflow=False)
    assert {path.name for path in Path(settings.online).parent.iterdir()} == before
    for copy in ("in use", "closed"):
        with closing(sqlite3.connect(tmp_path / copy / "feast" / "online.db")) as connection:
            assert connection.execute("SELECT value FROM rows").fetchall() == [(7,)]


@pytest.mark.long
def test_a_table_that_is_being_written_is_copied_whole(settings: Settings, tmp_path: Path) -> None:
    lake, written = Lake(settings.lake, SOURCE, MODEL), Event()

    def write() -> None:
        for number in range(40):
            lake.replace("events", pa.table({"n": [number], "day": ["one"]}), "day = 'one'", ["day"])
            written.set()

    writer = Thread(target=write)
    writer.start()
    written.wait(60)
    copies = []
    while writer.is_alive() or not copies:
        copies.append(tmp_path / f"copy{len(copies)}")
        copy_state(settings, copies[-1], mlflow=False)
    writer.join()
    for copy in copies:
        assert Lake(str(copy / "lake"), SOURCE, MODEL).scan("events").to_table().num_rows == 1
    files = [path for path in (copies[0] / "lake").rglob("*.parquet") if "_delta_log" not in path.parts]
    assert files
    assert all(path.stat().st_nlink > 1 for path in files), "the content of tables is not copied"
