"""The DAG files, loaded as Airflow loads them, each time in a new process: from specs to DAGs, and light."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

from testing.spec_files import Raw, spec_files
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.contract.source_spec import SOURCES_DIR

ROOT = Path(__file__).parent.parent.parent
#: Models whose spec says that they score in batch.
SCORED = ("flight_outcome",)
OF_SOURCE = ("backfill", "data", "forget", "landing", "replay_quarantine", "restore_online", "retention")
OF_MODEL = ("approval", "backtest", "monitor", "reproduce", "rollback", "train")
SOURCES, MODELS = ("card_payments", "flights"), ("card_fraud", "flight_delay", "flight_outcome")
FILES = sorted((ROOT / "dags").glob("*.py"))

#: For each line, a path and an environment: prints what the DAG file makes, and which modules and files of specs that
#: took. As Airflow does, it imports Airflow once, and forks a process for each: the import takes 3 s of CPU. Without
#: `os._exit`, the end of such a process takes another one.
LOADER = """
import json, os, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

def load(path):
    files = []
    sys.addaudithook(lambda event, args: event == "open" and files.append(str(args[0])))
    bag = DagBag(path)
    dags = {dag_id: json.loads(json.dumps(DagSerialization.to_dict(dag)["dag"])) for dag_id, dag in bag.dags.items()}
    return {"dags": dags, "errors": bag.import_errors, "modules": list(sys.modules), "files": files}

for line in sys.stdin:
    path, environ = json.loads(line)
    if os.fork() == 0:
        os.environ.clear()
        os.environ.update(environ)
        print("LOADED", json.dumps(load(path)), flush=True)
        os._exit(0)
    os.wait()
    print("ENDED", flush=True)
"""

HEAVY = {
    "bentoml", "deltalake", "duckdb", "evidently", "feast", "great_expectations", "ibis", "mlflow", "numpy", "onnx",
    "onnxruntime", "pandas", "pyarrow", "sklearn", "torch",
}  # fmt: skip


def spec_names(loaded: dict[str, Any]) -> list[str]:
    """The names of the files of specs that were read, sorted."""
    files = [Path(file) for file in loaded["files"] if file.endswith(".yaml")]
    return sorted(file.stem for file in files if file.parent in (MODELS_DIR, SOURCES_DIR))


def environment(**environ: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}", **environ}


@cache
def loader() -> subprocess.Popen[str]:
    command, pipe = [sys.executable, "-c", LOADER], subprocess.PIPE
    return subprocess.Popen(
        command, env=environment(), cwd="/", stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module", autouse=True)
def _the_loader_ends() -> Iterator[None]:
    yield
    if loader.cache_info().currsize:
        loader().communicate()
        loader.cache_clear()


def load(path: Path, **environ: str) -> dict[str, Any]:
    process = loader()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([str(path), environment(**environ)]) + "\n")
    process.stdin.flush()
    said = list(takewhile(lambda line: line != "ENDED\n", process.stdout))
    loaded = [line for line in said if line.startswith("LOADED ")]
    assert loaded, "".join(said)
    found: dict[str, Any] = json.loads(loaded[0].removeprefix("LOADED "))
    return found


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    return load(ROOT / "dags")


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is made of several models of one source, of which one has a broken spec. Loading all files takes a second
    of CPU, so that tests share it."""
    folder, spec = tmp_path_factory.mktemp("varied"), yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
    space = {"logistic_regression": {"C": {"low": 0.1, "high": 1.0}}}
    searching = {**spec["training"], "window_days": 60, "estimators": {"mlp": {}, "logistic_regression": {}}}
    made = {
        "card_fraud": {},
        "other": {"title": "Other"},
        "broken": {"typo": 1},
        "whole": {"training": {**searching, "search": {"spaces": space, "parallel": 1}}},
        "parts": {"training": {**searching, "search": {"spaces": space, "parallel": 3}}},
        "follows": {"scoring": {"when": "new_data"}},
        "nightly": {"scoring": {"when": "0 2 * * *"}},
    }
    for name, change in made.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**spec, "name": name, **change}))
    assert load_model_spec("other", folder).title == "Other"
    return load(ROOT / "dags", CT_MODELS_DIR=str(folder))


def ids(sources: tuple[str, ...] = SOURCES, models: tuple[str, ...] = MODELS) -> list[str]:
    """The ids of the DAGs of these sources and models."""
    of_sources = [f"{source}_{kind}" for source in sources for kind in OF_SOURCE]
    of_models = [f"{model}_{kind}" for model in models for kind in OF_MODEL]
    return sorted([*of_sources, *of_models, *(f"{model}_score" for model in models if model in SCORED)])


def tasks(dag: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {task["__var"]["task_id"]: task["__var"] for task in dag["tasks"]}


def test_every_spec_has_its_dags(loaded: dict[str, Any]) -> None:
    assert loaded["errors"] == {}
    assert sorted(loaded["dags"]) == ids()


def test_no_ml_library_is_imported(loaded: dict[str, Any]) -> None:
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in loaded["modules"])
    assert not any(
        name.startswith(("training.steps", "training.domain", "training.adapters")) for name in loaded["modules"]
    )


def test_the_dags_say_what_they_are(loaded: dict[str, Any]) -> None:
    said = {
        "card_payments": ("Card payments: ", "payments-data"),
        "card_fraud": ("Card fraud: ", "payments-ml"),
        "flights": ("Flights from New York: ", "network-data"),
        "flight_delay": ("Flight delay: ", "network-planning"),
        "flight_outcome": ("Flight outcome: ", "network-planning"),
    }
    for dag_id, dag in loaded["dags"].items():
        title, owner = next(said[name] for name in said if dag_id.startswith(f"{name}_"))
        assert dag["dag_display_name"].startswith(title), dag_id
        assert dag["doc_md"], dag_id
        # Approvals wait for people, which must not keep another one from being asked for.
        assert (dag["max_active_runs"] == 1) == (not dag_id.endswith("_approval")), dag_id
        assert dag["default_args"]["__var"]["owner"] == owner, dag_id
        for name, param in dag["params"]:
            assert param["schema"]["__var"]["title"], (dag_id, name)
            assert param["description"] or param["schema"]["__var"].get("description"), (dag_id, name)


def test_the_training_dag_runs_its_steps_in_order(loaded: dict[str, Any]) -> None:
    found = tasks(loaded["dags"]["card_fraud_train"])
    after = {name: set(task.get("downstream_task_ids", [])) for name, task in found.items()}
    chain = ["decide_retraining", "dataset", "train", "evaluate", "register", "rollout"]
    for earlier, later in pairwise(chain):
        assert later in after[earlier], (earlier, later)
    assert "ask_for_approval" in after["register"]
    assert "release_request" in after["ask_for_approval"]
    assert set(found) == {*chain, "estimators", "ask_for_approval", "release_request"}
    # An estimator that fails does not end the run, so it does not release the request either.
    assert all(("release_request" in after[step]) == (step != "train") for step in chain)
    rules = {name: task.get("trigger_rule") for name, task in found.items() if task.get("trigger_rule")}
    assert rules == {"evaluate": "all_done_min_one_success", "release_request": "one_failed"}


def test_the_approval_dag_asks_between_request_and_record(loaded: dict[str, Any]) -> None:
    found = tasks(loaded["dags"]["card_fraud_approval"])
    after = {name: set(task.get("downstream_task_ids", [])) for name, task in found.items()}
    assert set(found) == {"request_approval", "approve", "record_approval", "rollout", "ask_again"}
    assert (after["request_approval"], after["approve"]) == ({"approve"}, {"record_approval"})
    assert after["record_approval"] == {"rollout", "ask_again"}
    # Also when nobody is asked, because the request has ended.
    assert found["record_approval"]["trigger_rule"] == "none_failed"


@pytest.mark.ci
def test_a_model_whose_versions_nobody_approves_has_no_approval_dag(tmp_path: Path) -> None:
    spec = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
    (tmp_path / "card_fraud.yaml").write_text(yaml.safe_dump({**spec, "approval": "never"}))
    assert load(ROOT / "dags" / "approval.py", CT_MODELS_DIR=str(tmp_path))["dags"] == {}


def test_a_search_in_parts_is_a_task_for_each_part_before_train(varied: dict[str, Any]) -> None:
    whole, parts = (tasks(varied["dags"][f"{name}_train"]) for name in ("whole", "parts"))
    assert set(parts) - set(whole) == {"search_parts", "search"}
    after = {name: set(task.get("downstream_task_ids", [])) for name, task in parts.items()}
    assert after["search_parts"] == {"search"}
    assert after["search"] == {"train"}
    assert {"search", "train"} < after["dataset"]
    # A part that fails drops out.
    assert parts["train"]["partial_kwargs"]["trigger_rule"] == "all_done"
    assert "trigger_rule" not in whole["train"]["partial_kwargs"]
    assert "searched" not in json.dumps(whole["train"])


def test_a_new_spec_makes_its_dags_without_code_and_a_broken_one_costs_no_other_its_own(varied: dict[str, Any]) -> None:
    scored = ("follows", "nightly")
    models = ("card_fraud", "other", "whole", "parts", *scored)
    assert sorted(varied["dags"]) == sorted([*ids(models=models), *(f"{model}_score" for model in scored)])
    ((file, error),) = varied["errors"].items()
    assert Path(file).name == "broken_specs.py"
    assert "typo" in error


def test_a_broken_source_costs_no_other_its_dags_and_names_its_models(tmp_path: Path) -> None:
    def other(model: Raw, source: Raw) -> None:
        model |= {"name": "other", "title": "Other", "source": "other"}
        source |= {"name": "other", "title": "Other"}
        source["feeds"]["events"]["columns"]["amount"]["typo"] = 1

    files = spec_files(tmp_path, other)
    (files["models_dir"] / "card_fraud.yaml").write_text((MODELS_DIR / "card_fraud.yaml").read_text())
    loaded = load(ROOT / "dags", CT_MODELS_DIR=str(files["models_dir"]), CT_FEATURE_REPO=str(files["feature_repo"]))
    assert sorted(loaded["dags"]) == ids(models=("card_fraud",))
    ((_, error),) = loaded["errors"].items()
    assert "other.yaml breaks the source spec's schema: feeds.events.columns.amount.typo" in error
    assert "Without it these models have no DAGs: other." in error
    assert error.count("typo") == 1


def test_two_models_of_a_source_share_its_data_and_each_is_monitored_when_it_has_landed(varied: dict[str, Any]) -> None:
    dags = varied["dags"]
    assert sorted(dag_id for dag_id in dags if dag_id.startswith(SOURCES)) == [
        f"{source}_{kind}" for source in SOURCES for kind in OF_SOURCE
    ]
    # The monitors read the lake, so they do not wait until the rows are online.
    of_source = tasks(dags["card_payments_data"])
    (computed,) = of_source["features"]["outlets"]
    assert not of_source["materialize"].get("outlets")
    for model in ("card_fraud", "other"):
        assert computed["__var"]["name"] in json.dumps(dags[f"{model}_monitor"]["timetable"])


def test_scoring_follows_new_data_or_a_schedule_and_announces_predictions(varied: dict[str, Any]) -> None:
    dags = varied["dags"]
    assert "card_payments_features" in json.dumps(dags["follows_score"]["timetable"])
    assert "0 2 * * *" in json.dumps(dags["nightly_score"]["timetable"])
    (announced,) = tasks(dags["nightly_score"])["score"]["outlets"]
    assert announced["__var"]["name"] == "nightly_predictions"


@pytest.mark.ci
def test_a_changed_schedule_is_that_of_the_dag(tmp_path: Path) -> None:
    spec = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
    times = {"monitor": "17 3 * * *", "train": "41 5 * * 2"}
    assert not set(times.values()) & set(spec["schedule"].values())
    spec["schedule"] |= times
    (tmp_path / "card_fraud.yaml").write_text(yaml.safe_dump(spec))
    dags = load(ROOT / "dags", CT_MODELS_DIR=str(tmp_path))["dags"]
    for kind, cron in times.items():
        assert cron in json.dumps(dags[f"card_fraud_{kind}"]["timetable"]), kind


@pytest.mark.ci
def test_without_a_schedule_a_training_starts_for_a_request_only(tmp_path: Path, loaded: dict[str, Any]) -> None:
    spec = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
    spec["schedule"]["train"] = None
    (tmp_path / "card_fraud.yaml").write_text(yaml.safe_dump(spec))
    timetable = json.dumps(load(ROOT / "dags", CT_MODELS_DIR=str(tmp_path))["dags"]["card_fraud_train"]["timetable"])
    assert "x-perennial://card_fraud/retrain" in timetable
    assert "CronTriggerTimetable" in json.dumps(loaded["dags"]["card_fraud_train"]["timetable"])
    assert "CronTriggerTimetable" not in timetable


@pytest.mark.ci
def test_a_file_with_another_ending_is_reported(tmp_path: Path) -> None:
    (tmp_path / "late.yml").write_text("name: late\n")
    ((_, error),) = load(ROOT / "dags", CT_MODELS_DIR=str(tmp_path))["errors"].items()
    assert "late.yml is not read: a spec ends in .yaml" in error


def test_no_features_are_computed_before_the_check_of_the_files_that_define_them(loaded: dict[str, Any]) -> None:
    found = tasks(loaded["dags"]["card_payments_data"])
    after = {name: set(task.get("downstream_task_ids", [])) for name, task in found.items()}
    # Ingest uses neither SQL nor Feast and does not wait for the check. Any of them may fail because of an outage.
    again = "try_again_later"
    assert after == {
        "check": {"features", again},
        "ingest": {"features", again},
        "features": {"materialize", again},
        "materialize": {again},
        again: set(),
    }
    assert found[again]["trigger_rule"] == "one_failed"


def test_a_backfill_takes_in_nothing_before_the_check(loaded: dict[str, Any]) -> None:
    found = tasks(loaded["dags"]["card_payments_backfill"])
    after = {name: set(task.get("downstream_task_ids", [])) for name, task in found.items()}
    chain = ["plan", "ingest", "months", "features", "materialize", "record"]
    assert set(found) == {"check", *chain}
    assert after["check"] == {"ingest"}
    # One mapped task at a time: the scheduler then takes them in the order of the plan.
    for step in ("ingest", "features"):
        assert found[step]["partial_kwargs"]["max_active_tis_per_dagrun"] == 1
    for earlier, later in pairwise(chain):
        assert later in after[earlier], (earlier, later)


@pytest.mark.ci
def test_sql_and_feast_are_not_looked_at_when_dags_are_made(tmp_path: Path) -> None:
    for name in ("card_payments.sql", "card_payments.py"):
        (tmp_path / name).write_text("neither SQL nor Python")
    for source in SOURCES:
        shutil.copy(SOURCES_DIR / f"{source}.yaml", tmp_path)
    loaded = load(ROOT / "dags", CT_FEATURE_REPO=str(tmp_path))
    assert loaded["errors"] == {}
    assert sorted(loaded["dags"]) == ids()


@pytest.mark.ci
def test_a_task_loads_only_the_dag_that_it_belongs_to() -> None:
    loaded = load(ROOT / "dags", _AIRFLOW_PARSING_CONTEXT_DAG_ID="card_payments_data")
    assert list(loaded["dags"]) == ["card_payments_data"]


@pytest.mark.ci
def test_a_task_reads_the_files_of_its_own_model_and_source_only_and_each_once() -> None:
    loaded = load(ROOT / "dags" / "monitor.py", _AIRFLOW_PARSING_CONTEXT_DAG_ID="flight_delay_monitor")
    assert list(loaded["dags"]) == ["flight_delay_monitor"]
    assert spec_names(loaded) == ["flight_delay", "flights"]


@pytest.mark.long
def test_the_file_of_a_source_is_read_once_for_all_of_its_models() -> None:
    assert spec_names(load(ROOT / "dags" / "monitor.py")) == sorted([*SOURCES, *MODELS])


def test_tasks_have_no_copies_of_the_parameters_of_their_dag(loaded: dict[str, Any]) -> None:
    for dag_id, dag in loaded["dags"].items():
        with_params = ("_approval", "_backfill", "_backtest", "_data", "_forget", "_replay_quarantine", "_reproduce")
        with_params += ("_rollback", "_score", "_train")
        assert bool(dag["params"]) == dag_id.endswith(with_params), dag_id
        # Those of `approve` are the form in which a person answers.
        assert not any("params" in task for name, task in tasks(dag).items() if name != "approve"), dag_id


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_dag_files_are_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 60
