"""The declaration of every step. Command line, pod arguments, schemas and docs/reference.md come from it."""

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import ConfigDict

from training.contract import messages as m
from training.contract.base import Frozen
from training.contract.errors import InputError
from training.contract.names import did_you_mean


class StepSpec(Frozen):
    """One step: `python -m training <name> --inputs '<json>' --result <uri>`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    summary: str
    inputs: type[m.StepInputs]
    result: type[Frozen]
    timeout_seconds: int = 3600

    @property
    def entrypoint(self) -> str:
        """Dotted path of `run(inputs, settings) -> result`; imported only when the step runs."""
        return f"training.steps.{self.name}:run"

    def load(self) -> Any:
        module, function = self.entrypoint.split(":")
        return getattr(import_module(module), function)

    def load_assistant(self) -> Any:
        """`assist(inputs, settings)`, which further processes of the step run. None: the step has one process."""
        return getattr(import_module(self.entrypoint.split(":")[0]), "assist", None)


STEPS: Mapping[str, StepSpec] = {
    spec.name: spec
    for spec in (
        StepSpec(
            name="check",
            summary="Find the mistakes in the files of a source before anything runs.",
            inputs=m.CheckInputs,
            result=m.CheckResult,
            timeout_seconds=600,
        ),
        StepSpec(
            name="ingest",
            summary="Validate one landed partition, quarantine the rows that break a rule, put the rest in the lake.",
            inputs=m.IngestInputs,
            result=m.IngestResult,
        ),
        StepSpec(
            name="replay_quarantine",
            summary="Validate quarantined rows again, by the current rules or corrected, and ingest the valid ones.",
            inputs=m.ReplayQuarantineInputs,
            result=m.ReplayQuarantineResult,
        ),
        StepSpec(
            name="features",
            summary="Compute the feature rows of the affected days.",
            inputs=m.FeaturesInputs,
            result=m.FeaturesResult,
        ),
        StepSpec(
            name="materialize",
            summary="Put the newest feature rows into the online store.",
            inputs=m.MaterializeInputs,
            result=m.MaterializeResult,
        ),
        StepSpec(
            name="decide_retraining",
            summary="Decide whether to train: grant or refuse a request, and resolve what the training run reads.",
            inputs=m.DecideRetrainingInputs,
            result=m.DecideRetrainingResult,
        ),
        StepSpec(
            name="dataset",
            summary="Join labels and features point-in-time into a training and a holdout split.",
            inputs=m.DatasetInputs,
            result=m.DatasetResult,
        ),
        StepSpec(
            name="search",
            summary="Try parameters of one estimator: one part of its search.",
            inputs=m.SearchInputs,
            result=m.SearchResult,
            timeout_seconds=6 * 3600,
        ),
        StepSpec(
            name="train",
            summary="Fit one estimator, export it to ONNX, prove parity, log the run.",
            inputs=m.TrainInputs,
            result=m.TrainResult,
            timeout_seconds=6 * 3600,
        ),
        StepSpec(
            name="evaluate",
            summary="Score the candidates and the champion on the same holdout and reach a verdict.",
            inputs=m.EvaluateInputs,
            result=m.EvaluateResult,
            # It may fit the challenger again, with other seeds.
            timeout_seconds=6 * 3600,
        ),
        StepSpec(
            name="register",
            summary="Register the challenger as a model version.",
            inputs=m.RegisterInputs,
            result=m.RegisterResult,
        ),
        StepSpec(
            name="request_approval",
            summary="Say what a person has to decide about a registered version.",
            inputs=m.RequestApprovalInputs,
            result=m.RequestApprovalResult,
        ),
        StepSpec(
            name="record_approval",
            summary="Write who approved or rejected a version to ledger and registry.",
            inputs=m.RecordApprovalInputs,
            result=m.RecordApprovalResult,
        ),
        StepSpec(
            name="rollout",
            summary="Bring a model version into service through its stages; roll it back when a guard trips.",
            inputs=m.RolloutInputs,
            result=m.RolloutResult,
            # The stages of the plan decide how long it takes. After a timeout the next run continues at its stage.
            timeout_seconds=24 * 3600,
        ),
        StepSpec(
            name="rollback",
            summary="Return to the previous version, or to a named one.",
            inputs=m.RollbackInputs,
            result=m.RolloutResult,
        ),
        StepSpec(
            name="score",
            summary="Score the events of partitions in batch, and write each prediction once.",
            inputs=m.ScoreInputs,
            result=m.ScoreResult,
            timeout_seconds=6 * 3600,
        ),
        StepSpec(
            name="drift",
            summary="Compare the current window's features and scores with the champion's training reference.",
            inputs=m.DriftInputs,
            result=m.DriftResult,
        ),
        StepSpec(
            name="performance",
            summary="Measure the champion's predictions against the labels that have come in since.",
            inputs=m.PerformanceInputs,
            result=m.PerformanceResult,
        ),
        StepSpec(
            name="audit",
            summary="Compute logged features again offline and report the values that differ.",
            inputs=m.AuditInputs,
            result=m.AuditResult,
        ),
        StepSpec(
            name="reproduce",
            summary="Train a registered version again from its recipe, and compare the two.",
            inputs=m.ReproduceInputs,
            result=m.ReproduceResult,
            timeout_seconds=6 * 3600,
        ),
        StepSpec(
            name="clean_source",
            summary="Delete old data of a source: earlier table versions that no registered version needs, pages.",
            inputs=m.CleanSourceInputs,
            result=m.CleanResult,
        ),
        StepSpec(
            name="clean_model",
            summary="Delete old data of a model: work files, reports, artifacts of unregistered runs.",
            inputs=m.CleanModelInputs,
            result=m.CleanResult,
        ),
        StepSpec(
            name="backtest",
            summary="Replay history under several retraining policies and compare what they would have cost.",
            inputs=m.BacktestInputs,
            result=m.BacktestResult,
            # It keeps what it has computed: after a timeout the next run continues there.
            timeout_seconds=24 * 3600,
        ),
        StepSpec(
            name="forget",
            summary="Remove the rows of a person from a source and from what was made of them.",
            inputs=m.ForgetInputs,
            result=m.ForgetResult,
            timeout_seconds=6 * 3600,
        ),
        StepSpec(
            name="verify_source",
            summary="Read the files of a source's tables, and name each that was changed after it was written.",
            inputs=m.VerifySourceInputs,
            result=m.VerifySourceResult,
            timeout_seconds=6 * 3600,
        ),
        StepSpec(
            name="verify_model",
            summary="Name each ledger entry and version of a model that was changed since it was written.",
            inputs=m.VerifyModelInputs,
            result=m.VerifyModelResult,
        ),
        StepSpec(
            name="ledger_verify",
            summary="Check that no entry of a model's ledger was altered or removed.",
            inputs=m.LedgerVerifyInputs,
            result=m.LedgerVerifyResult,
        ),
    )
}


#: The steps that sign model versions: launchers give the private key to no others.
SIGNING_STEPS = frozenset({"register"})


def step_spec(name: str) -> StepSpec:
    """The step called `name`. Raises InputError for an unknown one."""
    if name not in STEPS:
        raise InputError(f"There is no step {name!r}", f"{did_you_mean(name, STEPS)}docs/reference.md lists the steps.")
    return STEPS[name]


def step_command(name: str, inputs: Mapping[str, Any], result_uri: str) -> list[str]:
    """Python's arguments to run a step. They are the same for every launcher."""
    step_spec(name)
    return ["-m", "training", name, "--inputs", json.dumps(inputs, sort_keys=True), "--result", result_uri]


def distributed_command(
    name: str, inputs: Mapping[str, Any], result_uri: str, *, nodes: int, processes: int, rendezvous: str
) -> list[str]:
    """Python's arguments to run a step under torchrun, with `processes` processes on each of `nodes` nodes.

    Every node runs the same command (training/distributed.py). JOB_COMPLETION_INDEX in its environment is its number.
    `rendezvous` is host:port on the first node, to which the others connect; a single node needs none.
    """
    step = step_command(name, inputs, result_uri)[2:]
    where = ["--rendezvous", rendezvous] if nodes > 1 else []
    return ["-m", "training.distributed", "--nodes", str(nodes), "--processes", str(processes), *where, *step]
