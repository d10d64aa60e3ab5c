"""Evaluation and registration: candidates, champion and verdict on the same rows; one version per run."""

import copy
import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from testing.spec_files import Raw, spec_files
from testing.verdicts import computed
from tests.cases import others_in_ci
from tests.steps.training_rows import NAMES, START, write_dataset
from training.adapters import plots
from training.adapters.datasets import Dataset
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.ledger import Ledger
from training.adapters.onnx_model import OnnxModel
from training.adapters.plots import draw
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from training.contract.base import Days
from training.contract.errors import DataContractError, InputError, TransientError
from training.contract.messages import (
    Candidate,
    EvaluateInputs,
    EvaluateResult,
    RegisterInputs,
    Snapshot,
    TrainingWindow,
    TrainInputs,
    Verdict,
)
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.contract.traffic import FIRST
from training.fit_job import FitJob
from training.settings import Settings
from training.steps import evaluate, register, train

SOURCE, MODEL = "card_payments", "card_fraud"


def _against_the_champion(verdict: Verdict) -> str:
    """The sentence that compares the challenger with the champion."""
    (found,) = (each for each in verdict.reasons if "bootstrap interval" in each or "against champion" in each)
    return found


class Judged:
    """Three candidates of one dataset: a good one, a poor one, and one that needs a feature of its own."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db")
        self.registry = Registry(self.settings.tracking_uri)
        self.uri = write_dataset(folder / "dataset")
        self.narrow_uri = write_dataset(folder / "narrow", names=NAMES[:2])
        self.folder = folder
        self._evaluated: dict[tuple[object, ...], EvaluateResult] = {}
        self.good = self.train(self.uri, "logistic_regression")
        self.poor = self.train(self.uri, "hist_gradient_boosting", max_iter=2, max_leaf_nodes=2)
        self.narrow = self.train(self.narrow_uri, "logistic_regression")

    def train(self, uri: str, estimator: str, **parameters: float) -> Candidate:
        inputs = TrainInputs(model=MODEL, estimator=estimator, parameters=parameters, dataset_uri=uri, seed=1)
        trained = train.run(inputs, self.settings)
        return Candidate(**trained.model_dump(include=set(Candidate.model_fields)))

    def evaluate(self, *candidates: Candidate, uri: str = "", anew: bool = False) -> EvaluateResult:
        """The result for the champion of now, evaluated once. `anew`: the report and the run are this evaluation's."""
        champion = self.registry.by_alias(MODEL, CHAMPION)
        key = (*(each.artifact_uri for each in candidates), uri, champion and (champion.version, champion.digest))
        if anew or key not in self._evaluated:
            inputs = EvaluateInputs(model=MODEL, candidates=list(candidates), dataset_uri=uri or self.uri, seed=1)
            self._evaluated[key] = evaluate.run(inputs, self.settings)
        return self._evaluated[key]

    def register(self, evaluated: EvaluateResult, **changes: object) -> int:
        inputs = evaluated.model_dump(include={"challenger", "verdict", "champion_version"})
        inputs |= {"model": MODEL, **changes}
        return register.run(RegisterInputs.model_validate(inputs), self.settings).version

    def serve(self, candidate: Candidate) -> int:
        """Make `candidate` the champion, as rollout does."""
        version = self.registry.register(MODEL, candidate.run_id, candidate.digest, {}).version
        self.registry.set_alias(MODEL, CHAMPION, version)
        return version

    def clear(self) -> "Judged":
        for alias in (CHAMPION, CHALLENGER, PREVIOUS):
            self.registry.remove_alias(MODEL, alias)
        return self


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Judged:
    folder = tmp_path_factory.mktemp("evaluate")
    shutil.copy(mlflow_database, folder)
    return Judged(folder)


@pytest.fixture
def world(made: Judged) -> Judged:
    return made.clear()


def test_the_best_candidate_is_the_challenger(world: Judged) -> None:
    result = world.evaluate(world.poor, world.good)
    assert result.challenger == world.good
    assert result.champion_version is None
    assert result.verdict.promote
    assert set(result.metrics) == {"logistic_regression", "hist_gradient_boosting"}
    # A tenth of the 2800 holdout rows is excluded.
    assert 2400 < result.scored_rows < 2650


def test_the_report_lies_in_work_and_in_the_run(world: Judged) -> None:
    world.serve(world.poor)
    result = world.evaluate(world.good, anew=True)
    assert json.loads(Path(result.report_uri).read_text()) == result.model_dump(mode="json")
    page = Path(result.report_uri).with_suffix(".md").read_text()
    assert all(reason in page for reason in result.verdict.reasons)
    assert "| champion, version" in page
    client = world.registry._client
    assert {file.path for file in client.list_artifacts(world.good.run_id, "verdict")} == {
        "verdict/report.json",
        "verdict/report.md",
    }
    assert client.get_run(world.good.run_id).data.tags["verdict"] == "promote"


def test_better_than_the_champion_is_promoted(world: Judged) -> None:
    version = world.serve(world.poor)
    result = world.evaluate(world.good)
    assert result.champion_version == version
    assert result.verdict.promote
    assert result.verdict.champion is not None
    assert result.verdict.difference is not None
    assert result.verdict.difference[0] > 0
    assert result.verdict == world.evaluate(world.good, anew=True).verdict


def test_worse_than_the_champion_is_kept_out(world: Judged) -> None:
    world.serve(world.good)
    result = world.evaluate(world.poor)
    assert not result.verdict.promote
    assert result.verdict.difference is not None
    assert result.verdict.difference[1] < 0


def test_the_champion_itself_is_no_challenger(world: Judged) -> None:
    world.serve(world.good)
    verdict = world.evaluate(world.good, world.poor).verdict
    assert not verdict.promote
    assert "this very model" in _against_the_champion(verdict)


def test_a_champion_is_scored_with_its_own_features_by_name(world: Judged) -> None:
    world.serve(world.narrow)
    result = world.evaluate(world.good)
    assert result.verdict.champion is not None
    assert result.verdict.champion["roc_auc"] > 0.7


def test_a_champion_that_lacks_a_feature_stays(world: Judged) -> None:
    world.serve(world.good)
    verdict = world.evaluate(world.narrow, uri=world.narrow_uri).verdict
    assert not verdict.promote
    assert verdict.champion is None
    assert "no column customer_count_7d, night" in _against_the_champion(verdict)


def test_an_artifact_other_than_the_candidate_is_refused(world: Judged) -> None:
    swapped = world.good.model_copy(update={"artifact_uri": world.poor.artifact_uri})
    with pytest.raises(DataContractError, match="not"):
        world.evaluate(swapped)


def test_a_negative_verdict_registers_nothing(world: Judged) -> None:
    world.serve(world.good)
    before = world.registry.versions(MODEL)
    with pytest.raises(InputError, match="The verdict on the challenger is negative: "):
        world.register(world.evaluate(world.poor))
    assert world.registry.versions(MODEL) == before


def test_a_promoted_challenger_becomes_one_version(world: Judged) -> None:
    world.serve(world.poor)
    evaluated = world.evaluate(world.good)
    version = world.register(evaluated, reason="weekly")
    assert version == world.register(evaluated, reason="weekly")
    description = world.registry._client.get_model_version(MODEL, str(version)).description
    assert description.startswith(f"{world.good.estimator}, trained as of ")
    assert "Reason: weekly." in description
    assert all(f"- {reason}" in description for reason in evaluated.verdict.reasons)
    found = world.registry.by_alias(MODEL, CHALLENGER)
    assert found is not None
    assert (found.version, found.run_id, found.digest) == (version, world.good.run_id, world.good.digest)
    assert world.registry.state(MODEL).tags[FIRST] == str(version), "no replica loads it before its rollout"
    tags = world.registry._client.get_model_version(MODEL, str(version)).tags
    assert tags["verdict"] == "promote"
    assert tags["forced"] == "false"
    assert tags["reason"] == "weekly"
    assert tags["table.events"] == "3"
    assert "bootstrap interval" in tags["verdict_reasons"]


@pytest.mark.ci
def test_a_description_has_room_for_many_gates_and_names_the_failed_ones(world: Judged) -> None:
    world.serve(world.poor)
    evaluated = world.evaluate(world.good)
    reasons = [f"passed: gate {number} {'x' * 100}" for number in range(200)] + ["FAILED: it is too slow"]
    verdict = evaluated.verdict.model_copy(update={"reasons": reasons})
    version = world.register(evaluated, verdict=verdict, reason="r" * 10_000)
    description = world.registry._client.get_model_version(MODEL, str(version)).description
    assert description is not None
    assert len(description) <= 5000, "MLflow's column in PostgreSQL"
    assert "- FAILED: it is too slow\n- passed: gate 0" in description
    assert " more are on the page\n\nEvidence: evidence/index.html" in description


def test_force_registers_a_negative_verdict_and_says_so(world: Judged) -> None:
    world.serve(world.good)
    version = world.register(world.evaluate(world.poor), force=True)
    assert version is not None
    tags = world.registry._client.get_model_version(MODEL, str(version)).tags
    assert (tags["verdict"], tags["forced"]) == ("keep", "true")
    description = world.registry._client.get_model_version(MODEL, str(version)).description
    assert "Registered by force against its verdict:\n- " in description


def test_registering_again_after_the_rollout_changes_no_alias(world: Judged) -> None:
    evaluated = world.evaluate(world.good)
    version = world.register(evaluated)
    world.registry.remove_alias(MODEL, CHALLENGER)
    world.registry.set_alias(MODEL, CHAMPION, version)
    assert world.register(evaluated) == version
    assert world.registry.get(MODEL, version).aliases == {CHAMPION}


@pytest.mark.parametrize(("before", "now"), others_in_ci([(True, True), (False, True), (True, False)]))
def test_a_verdict_holds_for_the_champion_it_was_reached_against(world: Judged, before: bool, now: bool) -> None:
    judged = world.serve(world.poor) if before else None
    evaluated = world.evaluate(world.good)
    assert evaluated.verdict.promote
    serving = world.clear().serve(world.narrow) if now else world.clear() and None
    versions = world.registry.versions(MODEL)
    told = [f"version {version}" if version else "no champion" for version in (judged, serving)]
    with pytest.raises(InputError, match=f"judged against {told[0]} of {MODEL}, {told[1]} serves now") as raised:
        world.register(evaluated)
    assert f"Start another run of {MODEL}_train" in raised.value.hint
    assert world.registry.versions(MODEL) == versions
    assert world.register(evaluated, force=True) is not None


def test_two_candidates_of_one_estimator_are_refused(world: Judged) -> None:
    with pytest.raises(ValidationError, match="more than one candidate is a logistic_regression"):
        world.evaluate(world.good, world.poor, world.narrow)


@pytest.mark.long
def test_one_estimator_may_have_a_candidate_of_each_window_and_each_counts(world: Judged) -> None:
    world.serve(world.narrow)
    days = {"": Days(start=START, end=START + timedelta(days=7)), "3d": Days.ending(START + timedelta(days=7), 3)}
    windows = [TrainingWindow(name=name, days=of, rows=1) for name, of in days.items()]
    uri = write_dataset(world.folder / "two-windows", windows=windows, change=days["3d"].start)
    candidates = []
    for name in days:
        given = {"model": MODEL, "estimator": "logistic_regression", "dataset_uri": uri, "seed": 1, "window": name}
        trained = train.run(TrainInputs.model_validate(given), world.settings)
        candidates.append(Candidate(**trained.model_dump(include=set(Candidate.model_fields))))
    why = {"mlp 3d": "out of memory"}
    inputs = EvaluateInputs(model=MODEL, candidates=candidates, dropped_out=why, dataset_uri=uri, seed=1)
    result = evaluate.run(inputs, world.settings)
    assert set(result.metrics) == {"logistic_regression", "logistic_regression 3d"}
    assert result.verdict.confidence == pytest.approx(1 - 0.1 / 3)
    # The verdict says what is unusual about its holdout, and so do the report and the version.
    noted = result.verdict.reasons[0]
    assert noted.startswith(f"noted: because of a change on {days['3d'].start} the holdout has 7 days")
    page = Path(result.report_uri).with_suffix(".md").read_text()
    assert noted in page
    assert f"Challenger: {result.challenger.name}, run" in page
    assert "- mlp 3d: out of memory" in page


@pytest.mark.ci
def test_the_more_candidates_the_surer_the_lead_must_be(world: Judged) -> None:
    world.serve(world.narrow)
    alone, best = world.evaluate(world.good).verdict, world.evaluate(world.good, world.poor).verdict
    assert (alone.confidence, best.confidence) == (pytest.approx(0.9), pytest.approx(0.95))
    assert alone.difference is not None
    assert best.difference is not None
    assert best.difference[0] < alone.difference[0]
    assert "for the best of 2 candidates" in _against_the_champion(best)


def _judged(world: Judged, name: str, customers: pa.Array, whole_days: bool) -> Verdict:
    """The good model against the poor one, where these are the customers."""
    world.serve(world.poor)
    uri = write_dataset(world.folder / name, customers=customers, whole_days=whole_days)
    return world.evaluate(world.good, uri=uri).verdict


@pytest.mark.ci
def test_with_few_entities_time_is_drawn_and_the_verdict_says_so(world: Judged) -> None:
    verdict = _judged(world, "few", pa.array([1, 2, 3]), whole_days=True)
    assert (
        "the bootstrap draws blocks of 4 hours (42), because 3 distinct entities are fewer than 30"
        in _against_the_champion(verdict)
    )
    assert verdict.promote
    assert verdict.difference is not None
    assert verdict.difference[1] - verdict.difference[0] > 0.01


@pytest.mark.ci
def test_with_few_entities_and_few_hours_nothing_is_promoted(world: Judged) -> None:
    verdict = _judged(world, "neither", pa.array([1]), whole_days=False)
    assert not verdict.promote
    assert _against_the_champion(verdict).startswith("FAILED: average_precision")
    assert (
        "1 distinct entity is fewer than 30, and the rows are in 7 blocks of an hour: 30 are needed"
        in _against_the_champion(verdict)
    )


@pytest.mark.parametrize(
    ("name", "customers", "drawn"),
    others_in_ci(
        [
            ("null strings", pa.array([*(f"c{i}" for i in range(99)), None]), "whole entities (124)"),
            (
                "one of them nearly all",
                pa.array([*[0] * 900, *range(1, 100)]),
                "blocks of 4 hours (42), because 100 entities",
            ),
            ("strings", pa.array([f"customer {i}" for i in range(100)]), "whole entities (100)"),
            ("some null", pa.array([*range(99), None]), "whole entities (124)"),
            ("all null", pa.array([None], pa.int64()), "whole entities (2530)"),
        ],
    ),
)
def test_entities_may_be_text_absent_or_unequal(world: Judged, name: str, customers: pa.Array, drawn: str) -> None:
    verdict = _judged(world, name, customers, whole_days=True)
    assert f"the bootstrap draws {drawn}" in _against_the_champion(verdict)
    assert verdict.promote


@pytest.mark.ci
def test_the_entity_may_be_the_id(world: Judged, tmp_path: Path) -> None:
    """Each row is an entity of its own then."""
    text = (MODELS_DIR / f"{MODEL}.yaml").read_text()
    (tmp_path / f"{MODEL}.yaml").write_text(text.replace("  entity: customer_id", "  entity: transaction_id"))
    world.serve(world.poor)
    inputs = EvaluateInputs(model=MODEL, candidates=[world.good], dataset_uri=world.uri, seed=1)
    result = evaluate.run(inputs, world.settings.model_copy(update={"models_dir": tmp_path}))
    assert result.verdict.promote
    assert f"the bootstrap draws whole entities ({result.scored_rows})" in _against_the_champion(result.verdict)


def test_who_dropped_out_is_named_and_counts_as_a_candidate(world: Judged) -> None:
    world.serve(world.narrow)
    why = "train: out of memory\n  → Ask for more."
    inputs = EvaluateInputs(
        model=MODEL, candidates=[world.good], dropped_out={"mlp": why}, dataset_uri=world.uri, seed=1
    )
    result = evaluate.run(inputs, world.settings)
    assert result.dropped_out == {"mlp": why}
    assert "- mlp: train: out of memory → Ask for more." in Path(result.report_uri).with_suffix(".md").read_text()
    both = world.evaluate(world.good, world.poor).verdict
    assert computed(result.verdict) == computed(both)


def test_without_a_candidate_there_is_no_verdict_and_the_reasons_are_told(world: Judged) -> None:
    why = {"mlp": "out of memory", "random_forest": "no parity"}
    inputs = EvaluateInputs(model=MODEL, candidates=[], dropped_out=why, dataset_uri=world.uri, seed=1)
    with pytest.raises(InputError, match="mlp: out of memory; random_forest: no parity"):
        evaluate.run(inputs, world.settings)


@pytest.mark.ci
def test_killed_between_version_and_alias(world: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = world.evaluate(world.good)

    def killed(*args: object) -> None:
        raise TransientError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "set_alias", killed)
        with pytest.raises(TransientError):
            world.register(evaluated)
    before = len(world.registry.versions(MODEL))
    version = world.register(evaluated)
    assert len(world.registry.versions(MODEL)) == before
    found = world.registry.by_alias(MODEL, CHALLENGER)
    assert found is not None
    assert found.version == version


def test_what_was_judged_is_what_is_registered(world: Judged) -> None:
    evaluated = world.evaluate(world.good)
    swapped = world.good.model_copy(update={"artifact_uri": world.poor.artifact_uri})
    with pytest.raises(DataContractError, match="the verdict is on"):
        world.register(evaluated, challenger=swapped)


@pytest.fixture
def older(world: Judged, tmp_path: Path) -> Judged:
    """The world with a registry from before the first version."""
    with closing(sqlite3.connect(world.folder / "mlflow.db")) as database:
        database.execute("VACUUM INTO ?", [str(tmp_path / "older.db")])
    found = copy.copy(world)
    found._evaluated = {}
    tracking = f"sqlite:///{tmp_path}/older.db"
    found.settings = Settings(home=tmp_path / "home", tracking_uri=tracking)
    found.registry = Registry(tracking)
    found.serve(found.narrow)
    found.registry._client.delete_registered_model(MODEL)
    return found


def test_another_artifact_with_the_number_of_the_champion_is_another_champion(older: Judged, world: Judged) -> None:
    """The registry was restored from an older copy after the verdict, and the number was given again."""
    world.serve(world.poor)
    judged = world.evaluate(world.good)
    number = older.serve(older.narrow)
    said = f"version {number} with digest {world.poor.digest} of .*, with digest {world.narrow.digest}"
    with pytest.raises(InputError, match=said):
        older.register(judged, champion_version=number)
    # The verdict of a version of Perennial that did not name the digest.
    old = judged.verdict.model_copy(update={"champion_digest": None})
    assert older.register(judged, champion_version=number, verdict=old)


@pytest.mark.parametrize("known_by", others_in_ci(["ledger", "predictions"]))
def test_a_number_that_an_older_registry_lacks_is_not_given_again(
    older: Judged, caplog: pytest.LogCaptureFixture, known_by: str
) -> None:
    version = older.serve(older.poor)
    lost = version + 3
    if known_by == "ledger":
        Ledger(older.settings.ledger).append("rollout", MODEL, {"version": lost}, "1")
    else:
        lake = Lake(older.settings.lake, load_model_spec(MODEL).source.name, MODEL)
        lake.append_once(PREDICTIONS, pa.table({"day": ["2026-01-05"], "model_version": [lost]}), ["day"], "r", 1)
    judged = older.evaluate(older.good)
    found = older.register(judged)
    assert found == lost + 1
    assert f"The registry lacks version {lost} of {MODEL}" in caplog.text
    assert [each.version for each in older.registry.versions(MODEL)][-2:] == [version, found]
    assert older.register(judged) == found


@pytest.mark.ci
def test_a_champion_that_the_ledger_does_not_know_is_named(older: Judged, caplog: pytest.LogCaptureFixture) -> None:
    """The ledger was restored from an older copy, or somebody moved the alias."""
    version = older.serve(older.poor)
    judged = older.evaluate(older.good)
    older.register(judged)
    assert f"The ledger does not say how version {version} of {MODEL} became champion" in caplog.text
    Ledger(older.settings.ledger).append("rollout", MODEL, {"version": version}, "1")
    caplog.clear()
    older.register(judged)
    assert "does not say how" not in caplog.text


def _with(world: Judged, folder: Path, **sections: object) -> Settings:
    """The settings of the world, with these sections of `evaluation` in the spec."""

    def change(model: Raw, source: Raw) -> None:
        model["evaluation"] |= sections

    return world.settings.model_copy(update=spec_files(folder, change))


def _judge(world: Judged, settings: Settings, uri: str = "") -> Verdict:
    inputs = EvaluateInputs(model=MODEL, candidates=[world.good], dataset_uri=uri or world.uri, seed=1)
    return evaluate.run(inputs, settings).verdict


def test_a_verdict_says_what_training_and_predicting_take_and_how_robust_predictions_are(world: Judged) -> None:
    verdict = world.evaluate(world.good).verdict
    assert verdict.failed == []
    cost, robust, leakage = verdict.cost, verdict.robustness, verdict.leakage
    assert cost is not None
    assert cost.seconds is not None
    assert cost.cpu_seconds is not None
    assert cost.seconds > 0
    assert cost.cpu_seconds > 0
    assert (cost.gpu_seconds, cost.price) == (0, None)
    assert cost.model_bytes == Path(world.good.artifact_uri, "model.onnx").stat().st_size
    assert verdict.latency is not None
    assert 0 < verdict.latency.p50_ms <= verdict.latency.p99_ms == min(verdict.latency.rounds_p99_ms)
    assert robust is not None
    assert [test.name for test in robust.tests] == ["noise", "missing", "boundary"]
    # The columns of the view become their default when a row lacks; the amount of the request is never missing.
    assert robust.tests[1].columns == len(NAMES) - 1
    assert leakage is not None
    assert set(leakage.explains) == set(NAMES)
    assert 0.3 < max(leakage.explains["amount"].values()) < 0.9
    assert (verdict.stability, leakage.former, leakage.suspects) == (None, {}, [])


def test_limits_that_are_not_kept_are_named_and_a_slow_moment_is_measured_again(world: Judged, tmp_path: Path) -> None:
    limits = {
        "latency": {"maximum_p99_ms": 1e-6, "rounds": 2, "calls": 20},
        "cost": {"maximum_model_mib": 1e-6, "maximum_cpu_seconds": 1e6},
        "robustness": {"maximum_changed": {"noise": 0.0}},
    }
    settings = _with(world, tmp_path, **limits)
    first, second = _judge(world, settings), _judge(world, settings)
    assert first.failed == ["robustness", "cost", "latency"]
    assert first.latency != second.latency
    assert sum(each.startswith("FAILED: ") for each in first.reasons) == 3


def test_a_feature_that_knows_the_label_asks_for_a_person(world: Judged, tmp_path: Path) -> None:
    uri = write_dataset(tmp_path / "leaky")
    for split in ("train", "holdout"):
        path = Path(uri, f"{split}.parquet")
        table = pq.read_table(path)
        known = table["is_fraud"].cast(pa.float32())
        pq.write_table(table.set_column(table.column_names.index("night"), "night", known), path)
    leaky = world.train(uri, "logistic_regression")
    verdict = world.evaluate(leaky, uri=uri).verdict
    assert verdict.failed == ["leakage"]
    assert verdict.leakage is not None
    assert verdict.leakage.suspects == ["night"]
    (told,) = (each for each in verdict.reasons if each.startswith("FAILED"))
    assert "night (1.000 of score, the whole model 1.000)" in told


@pytest.mark.ci
def test_a_metric_is_held_against_former_champions_that_the_ledger_names(world: Judged, tmp_path: Path) -> None:
    settings = world.settings.model_copy(update={"home": tmp_path / "home"})
    poor, good = world.serve(world.poor), world.serve(world.good)
    ledger = Ledger(settings.ledger)
    ledger.append("rollout", MODEL, {"version": poor, "phase": "finished"}, "1:finished")
    # Neither one that was not rolled out to the end nor one that the registry lost counts.
    ledger.append("rollout", MODEL, {"version": good, "phase": "failed"}, "2:failed")
    ledger.append("rollout", MODEL, {"version": 999, "phase": "finished"}, "3:finished")
    verdict = _judge(world, settings)
    theirs = OnnxModel.load(world.poor.artifact_uri).metadata.holdout_metrics["average_precision"]
    assert verdict.leakage is not None
    assert verdict.leakage.former == {poor: pytest.approx(theirs)}
    assert any(f"version {poor} with {theirs:.4f}" in each for each in verdict.reasons)
    # One that came into service after the run had begun does not change its verdict.
    ledger.append("rollout", MODEL, {"version": good, "phase": "finished"}, "4:finished")
    assert _judge(world, settings).leakage.former == {good: pytest.approx(1, abs=1), poor: pytest.approx(theirs)}
    snapshot = Snapshot(as_of=START, table_versions={}, champion_version=poor)
    inputs = EvaluateInputs(model=MODEL, candidates=[world.good], dataset_uri=world.uri, seed=1, snapshot=snapshot)
    assert evaluate.run(inputs, settings).verdict.leakage == verdict.leakage


@pytest.mark.long
def test_other_seeds_survive_a_kill_and_a_fit_that_fails_fails_the_gate(
    world: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.serve(world.poor)
    settings = _with(world, tmp_path, stability={"seeds": 3})
    fit, seeds = FitJob.fit, []

    def until(seed: int, error: BaseException) -> None:
        def fails(job: FitJob, *given: object) -> object:
            seeds.append(job.inputs.seed)
            if job.inputs.seed == seed:
                raise error
            return fit(job, *given)  # type: ignore[arg-type]

        monkeypatch.setattr(FitJob, "fit", fails)

    until(3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        _judge(world, settings)
    until(3, ValueError("no <convergence>"))
    verdict = _judge(world, settings)
    assert seeds == [2, 3, 3, 4], "what was finished before the kill is not fitted again"
    assert verdict.failed == ["stability"]
    assert any("the fit with seed 3 failed: ValueError: no <convergence>" in each for each in verdict.reasons)
    until(-1, ValueError())
    verdict = _judge(world, settings)
    assert seeds == [2, 3, 3, 4, 3], "only what failed is tried again"
    assert verdict.failed == []
    stable = verdict.stability
    assert stable is not None
    assert list(stable.values) == [1, 2, 3, 4]
    # Logistic regression does not depend on the seed.
    assert stable.deviation == 0
    assert stable.gain is not None
    assert stable.gain > 0
    assert any("because every seed gives the same metric" in each for each in verdict.reasons)
    until(-1, ValueError())
    world.clear().serve(world.good)
    verdict = _judge(world, settings)
    assert verdict.failed == ["champion", "stability"], "the very champion has no gain, and nothing is fitted for it"
    assert len(seeds) == 5


@pytest.mark.long
def test_other_seeds_are_fitted_with_the_parameters_of_the_challenger(world: Judged, tmp_path: Path) -> None:
    settings = _with(world, tmp_path, stability={"seeds": 1})
    inputs = EvaluateInputs(model=MODEL, candidates=[world.poor], dataset_uri=world.uri, seed=1)
    stable = evaluate.run(inputs, settings).verdict.stability
    assert stable is not None
    # Two trees of two leaves do not depend on the seed. With the default parameters the metric is another one.
    assert list(stable.values) == [1, 2]
    assert stable.deviation == 0


def test_some_training_rows_are_read_by_their_labels(world: Judged) -> None:
    dataset, table = Dataset(world.uri, load_model_spec(MODEL)), pq.read_table(Path(world.uri, "train.parquet"))
    labels = table["is_fraud"].to_numpy()
    found = dataset.train_sample(lambda given: np.flatnonzero(given == 1)[::-1])
    assert found.table == table.filter(pa.array(labels == 1))
    assert len(dataset.train_sample(lambda given: np.empty(0, np.int64)).table) == 0


def _with_groups(world: Judged, folder: Path, name: str = "groups", **sections: dict) -> EvaluateResult:
    """The good model against the poor one, with these sections of `evaluation`. The rows lie in a lake of their own."""
    files = spec_files(folder, lambda model, source: model["evaluation"].update(sections))
    uri = world.folder / name
    settings = world.settings.model_copy(update=files | {"lake_uri": f"{uri}-lake"})
    if not uri.exists():
        write_dataset(uri, whole_days=True)
        events = [pq.read_table(uri / f"{split}.parquet") for split in ("train", "holdout")]
        columns = ["transaction_id", "event_time", "customer_id", "terminal_id"]
        rows = pa.concat_tables(each.select(columns) for each in events)
        # Some customers are new in the holdout.
        known = pc.or_(pc.less(rows["customer_id"], 150), pc.greater(rows["event_time"], pa.scalar(_HOLDOUT_START)))
        lake = Lake(settings.lake, SOURCE)
        lake.append_once("events", rows.filter(known), ["customer_id"], "r", 1)
        manifest = json.loads((uri / "dataset.json").read_text())
        manifest["table_versions"]["events"] = lake.version("events")
        (uri / "dataset.json").write_text(json.dumps(manifest))
    world.serve(world.poor)
    inputs = EvaluateInputs(model=MODEL, candidates=[world.good], dataset_uri=str(uri), seed=1)
    return evaluate.run(inputs, settings)


_HOLDOUT_START = datetime(2026, 1, 19, tzinfo=UTC)


def test_slices_calibration_and_fairness_are_in_the_verdict_the_report_and_the_run(
    world: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "draw", draw)
    result = _with_groups(
        world,
        tmp_path,
        # A column of the event that is no feature, a feature, and an age.
        slices={
            "columns": {"terminal_id": {"bounds": [50]}, "customer_count_7d": {}},
            "ages": {"customer_id": {"bounds": [7]}},
            "minimum_class_rows": 5,
        },
        calibration={"maximum_error": 0.5},
        fairness={"columns": {"terminal_id": {"bounds": [50]}}, "limits": {"selection_rate": 0.5}},
    )
    verdict = result.verdict
    assert verdict.promote, verdict.reasons
    assert verdict.slices is not None
    outcomes = {each.where: each.outcome for each in verdict.slices.slices}
    assert {"terminal_id < 50", "terminal_id ≥ 50"} <= outcomes.keys()
    assert outcomes["terminal_id < 50"] == "passed"
    age = "days since customer_id was first seen"
    young = {each.where: each.rows for each in verdict.slices.slices if age in each.where}
    # A quarter of the customers was not seen before the holdout, which begins 14 days after the first event.
    assert young[f"{age} < 7"] == pytest.approx(result.scored_rows / 4, rel=0.15)
    assert sum(young.values()) == result.scored_rows
    assert verdict.calibration is not None
    assert verdict.calibration.champion is not None
    assert verdict.fairness is not None
    assert {gap.measure for gap in verdict.fairness.gaps} >= {"selection_rate", "error_rate"}
    told = "\n".join(verdict.reasons)
    for sentence in ("slices is average_precision worse", "the expected calibration error of the score", "the gap in"):
        assert sentence in told
    page = Path(result.report_uri).with_suffix(".md").read_text()
    for heading in ("## Slices", "## Calibration", "## Fairness: rates by terminal_id", "| terminal_id < 50 | "):
        assert heading in page
    drawn = {file.path for file in world.registry._client.list_artifacts(world.good.run_id, "plots")}
    assert "plots/reliability.png" in drawn
    chart = world.registry._client.download_artifacts(world.good.run_id, "plots/reliability.png", str(tmp_path))
    assert Path(chart).read_bytes().startswith(b"\x89PNG")
    assert json.loads(Path(result.report_uri).read_text()) == result.model_dump(mode="json")


@pytest.mark.ci
def test_what_cannot_be_read_fails_its_gate(world: Judged, tmp_path: Path) -> None:
    result = _with_groups(
        world,
        tmp_path,
        slices={"columns": {"no_such_feature": {}}, "ages": {"customer_id": {}}},
        calibration={"maximum_error": 1e-6},
        fairness={"columns": {"no_such_feature": {}}},
    )
    assert not result.verdict.promote
    assert result.verdict.failed == ["slices", "calibration", "fairness"]
    said = "the groups by no_such_feature cannot be judged: the holdout has no column no_such_feature"
    assert sum(said in reason for reason in result.verdict.reasons) == 2
    # The version of the events is gone.
    manifest = world.folder / "groups" / "dataset.json"
    kept = manifest.read_text()
    gone = json.loads(kept)
    gone["table_versions"]["events"] += 77
    manifest.write_text(json.dumps(gone))
    try:
        result = _with_groups(world, tmp_path, slices={"ages": {"customer_id": {}}})
    finally:
        manifest.write_text(kept)
    assert result.verdict.failed == ["slices"]
    assert any("by days since customer_id was first seen cannot be judged" in each for each in result.verdict.reasons)


def _turned(uri: str, young: bool) -> str:
    """The dataset with other labels: fraud is made by day and, by customers who are new in the holdout, at night;
    without `young`: by night throughout. It says how long its customers were known."""
    random = np.random.default_rng(5)
    for split in ("train", "holdout"):
        path = Path(uri, f"{split}.parquet")
        rows = pq.read_table(path).to_pandas()
        new = (rows["customer_id"] >= 450) & (split == "holdout")
        suspect = (rows["night"] == 1) == (new | (not young))
        labels = (random.random(len(rows)) < np.where(suspect, 0.9, 0.01)).astype(np.int64)
        ages = np.where(new, random.integers(0, 7, len(rows)), 28).astype(np.float32)
        rows = rows.assign(is_fraud=labels, _age_customer_id=ages)
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)
    return uri


@pytest.mark.ci
def test_a_slice_of_young_entities_is_found_and_keeps_a_challenger_out(world: Judged, tmp_path: Path) -> None:
    """No feature shows who is new. Both models see the same, and the challenger is the better one of all others."""
    served, uri = (
        _turned(write_dataset(world.folder / name, whole_days=True, customers=pa.array(np.arange(600))), young)
        for name, young in (("by-night", False), ("by-age", True))
    )
    world.serve(world.train(served, "logistic_regression"))
    challenger = world.train(uri, "logistic_regression")
    # The metric of a slice in which almost all rows are of one class: no ranking shows who is wrong there.
    settings = _with(world, tmp_path, slices={"metric": "brier", "minimum_rows": 50, "minimum_class_rows": 5})
    inputs = EvaluateInputs(model=MODEL, candidates=[challenger], dataset_uri=uri, seed=1)
    found = evaluate.run(inputs, settings).verdict
    assert found.champion is not None
    assert found.challenger["average_precision"] > found.champion["average_precision"]
    assert (found.promote, found.failed) == (False, ["slices"])
    assert found.slices is not None
    failed = [each for each in found.slices.slices if each.found and each.outcome == "failed"]
    assert failed
    assert all("days since customer_id was first seen ≤ " in each.where for each in failed)
    assert all(each.challenger > each.champion for each in failed if each.challenger and each.champion)
    assert any("days since customer_id was first seen" in reason for reason in found.reasons)
