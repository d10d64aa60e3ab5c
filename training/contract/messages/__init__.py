"""Inputs and results of every step, a module per part of the loop. Results are small: data moves by URI and version.

Inputs are explicit: no step asks for the time, and none asks for the newest data in the middle of a run. The first step
of a run resolves its snapshot, and the others are given it. The rollout, which follows labels as they come in, is the
exception.
"""

from training.contract.messages.backtest import BacktestInputs, BacktestResult, Interval, Recommendation, Standing
from training.contract.messages.broker import DecideRetrainingInputs, DecideRetrainingResult
from training.contract.messages.challenger import Cost, Latency, Leakage, Perturbation, Robustness, Stability
from training.contract.messages.check import CheckInputs, CheckResult
from training.contract.messages.data import (
    FeaturesInputs,
    FeaturesResult,
    IngestInputs,
    IngestResult,
    MaterializeInputs,
    MaterializeResult,
)
from training.contract.messages.inputs import Metrics, ModelInputs, SourceInputs, StepInputs
from training.contract.messages.ledger import LedgerVerifyInputs, LedgerVerifyResult
from training.contract.messages.report import Failure, Provenance, StepReport
from training.contract.messages.reproduction import Made, ReproduceInputs, ReproduceResult
from training.contract.messages.retention import CleanModelInputs, CleanResult, CleanSourceInputs
from training.contract.messages.rollout import Replica, RollbackInputs, RolloutInputs, RolloutResult, StageResult
from training.contract.messages.scoring import ScoreInputs, ScoreResult
from training.contract.messages.snapshot import Snapshot, SnapshotInputs
from training.contract.messages.training import (
    Candidate,
    DatasetInputs,
    DatasetResult,
    EvaluateInputs,
    EvaluateResult,
    FailedPart,
    FitInputs,
    RegisterInputs,
    RegisterResult,
    SearchInputs,
    SearchResult,
    Split,
    TrainingWindow,
    TrainInputs,
    TrainResult,
    Verdict,
)
from training.contract.messages.watching import (
    AuditInputs,
    AuditResult,
    ColumnDrift,
    ComparedEstimate,
    DailyLoss,
    Degradation,
    Diagnosis,
    DriftInputs,
    DriftResult,
    EstimatedPerformance,
    FeatureSkew,
    PerformanceInputs,
    PerformanceResult,
    Segment,
    Shift,
    SkewExample,
)

__all__ = [
    "AuditInputs",
    "AuditResult",
    "BacktestInputs",
    "BacktestResult",
    "Candidate",
    "CheckInputs",
    "CheckResult",
    "CleanModelInputs",
    "CleanResult",
    "CleanSourceInputs",
    "ColumnDrift",
    "ComparedEstimate",
    "Cost",
    "DailyLoss",
    "DatasetInputs",
    "DatasetResult",
    "DecideRetrainingInputs",
    "DecideRetrainingResult",
    "Degradation",
    "Diagnosis",
    "DriftInputs",
    "DriftResult",
    "EstimatedPerformance",
    "EvaluateInputs",
    "EvaluateResult",
    "FailedPart",
    "Failure",
    "FeatureSkew",
    "FeaturesInputs",
    "FeaturesResult",
    "FitInputs",
    "IngestInputs",
    "IngestResult",
    "Interval",
    "Latency",
    "Leakage",
    "LedgerVerifyInputs",
    "LedgerVerifyResult",
    "Made",
    "MaterializeInputs",
    "MaterializeResult",
    "Metrics",
    "ModelInputs",
    "PerformanceInputs",
    "PerformanceResult",
    "Perturbation",
    "Provenance",
    "Recommendation",
    "RegisterInputs",
    "RegisterResult",
    "Replica",
    "ReproduceInputs",
    "ReproduceResult",
    "Robustness",
    "RollbackInputs",
    "RolloutInputs",
    "RolloutResult",
    "ScoreInputs",
    "ScoreResult",
    "SearchInputs",
    "SearchResult",
    "Segment",
    "Shift",
    "SkewExample",
    "Snapshot",
    "SnapshotInputs",
    "SourceInputs",
    "Split",
    "Stability",
    "StageResult",
    "Standing",
    "StepInputs",
    "StepReport",
    "TrainInputs",
    "TrainResult",
    "TrainingWindow",
    "Verdict",
]
