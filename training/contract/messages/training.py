"""From labels and features to a registered version."""

from datetime import date
from typing import Any

from pydantic import Field, model_validator

from training.contract.base import Days, Frozen, TableVersions
from training.contract.messages.approval import AskedRun, JudgedAgainst
from training.contract.messages.challenger import Cost, Latency, Leakage, Robustness, Stability
from training.contract.messages.inputs import Metrics, ModelInputs, counted
from training.contract.messages.judged_groups import CalibrationResult, FairnessResult, SliceResults
from training.contract.messages.snapshot import Snapshot, SnapshotInputs
from training.contract.names import CandidateName, EstimatorName, GateName, StoredMetric, more_than_once
from training.contract.state_uris import WorkUri


class DatasetInputs(SnapshotInputs):
    """Without a horizon, neither `as_of` nor that of the snapshot: the day after the newest labels."""

    window_days: int | None = Field(None, ge=1)
    """Overrides the spec's training.window_days."""
    seed: int | None = None
    """Overrides the spec's training.seed."""
    change: date | None = None
    """The day since which the data has changed. None: no change is known."""


class Split(Frozen):
    days: Days
    uri: str
    rows: int
    counts: dict[str, int] = {}
    """Class → its rows, where labels are classes."""

    @model_validator(mode="before")
    @classmethod
    def _counts_of_an_earlier_version(cls, fields: Any) -> Any:
        return counted(fields)


class TrainingWindow(Frozen):
    """Rows of a dataset that candidates are fitted on."""

    name: str = ""
    """As in training.windows, or `since_change`. Empty: the last `window_days` days."""
    days: Days
    rows: int
    counts: dict[str, int] = {}
    """Class → its rows, where labels are classes."""


class DatasetResult(Frozen):
    dataset_id: str
    uri: str
    as_of: date
    feature_service: str
    feature_names: list[str]
    """In the order in which models take them."""
    train: Split
    """The rows of all windows."""
    holdout: Split
    windows: list[TrainingWindow] = []
    """Every estimator is fitted on each. Empty in a dataset of an earlier version: all its rows are the one window."""
    window_days: int | None = None
    """Days of the usual window. None, in a dataset of an earlier version: all days of `train`."""
    change: date | None = None
    """The change for which gap and holdout are shorter. None: they have their usual length."""
    seed: int
    table_versions: TableVersions

    @property
    def all_windows(self) -> list[TrainingWindow]:
        """`windows`, also of a dataset of an earlier version."""
        whole = self.train
        return self.windows or [TrainingWindow(days=whole.days, rows=whole.rows, counts=whole.counts)]


class FitInputs(ModelInputs):
    """What decides a fit, beside the spec."""

    estimator: EstimatorName
    parameters: dict[str, Any] = {}
    """Override the spec's parameters."""
    window: str = ""
    """The name of one of the dataset's windows."""
    dataset_uri: WorkUri
    seed: int
    reason: str = ""


class SearchInputs(FitInputs):
    part: int = Field(ge=0)
    """The number of the part of the estimator's search, below training.search.parallel."""


class SearchResult(Frozen):
    """What a part of a search found."""

    estimator: EstimatorName
    part: int
    run_id: str
    """The part's run. The trials are its child runs."""
    trial: int
    """The number of the part's best trial."""
    parameters: dict[str, Any]
    """Of the best trial."""
    value: float
    """Of the best trial: the mean of `evaluation.primary` over the folds."""
    summary: str
    """The numbers of all, of pruned and of failed trials."""


class FailedPart(Frozen):
    """A part of a search that found nothing, and why."""

    estimator: EstimatorName
    part: int
    why: str


class TrainInputs(FitInputs):
    searched: list[SearchResult] | None = None
    """What the parts of the searches found, of all estimators. A part that is not here dropped out. None: the step
    searches itself, the parts one after the other."""
    search_failures: list[FailedPart] = []
    """Why parts dropped out, as far as it is known."""

    @model_validator(mode="after")
    def _each_part_once(self) -> "TrainInputs":
        parts = [found.part for found in self.searched or () if found.estimator == self.estimator]
        if doubled := sorted(more_than_once(parts)):
            raise ValueError(f"more than one result is of part {doubled[0]} of the search for {self.estimator}")
        return self


class TrainResult(Frozen):
    estimator: EstimatorName
    window: str = ""
    """That it was fitted on."""
    run_id: str
    artifact_uri: str
    """Folder of the served artifact (see contract/artifact.py)."""
    digest: str
    """SHA-256 of model.onnx."""
    parity: float
    """Largest difference between the native model's and the ONNX model's scores on the holdout."""
    device: str
    fit_seconds: float


class Candidate(Frozen):
    estimator: EstimatorName
    window: str = ""
    run_id: str
    artifact_uri: WorkUri
    digest: str

    @property
    def name(self) -> CandidateName:
        """The estimator, and the window unless it is the usual one."""
        return f"{self.estimator} {self.window}".strip()


class EvaluateInputs(ModelInputs):
    snapshot: Snapshot | None = None
    """The verdict is against its champion. None, when the step is run by hand: against the champion now."""
    candidates: list[Candidate]
    """Of each result of `train` these five fields."""
    dropped_out: dict[CandidateName, str] = {}
    """Fits of the run that gave no candidate → why."""
    dataset_uri: WorkUri
    seed: int

    @model_validator(mode="after")
    def _one_of_each_name(self) -> "EvaluateInputs":
        names = [*(candidate.name for candidate in self.candidates), *self.dropped_out]
        if doubled := sorted(more_than_once(names)):
            raise ValueError(f"more than one candidate is a {', '.join(doubled)}: one of each estimator and window")
        return self


class Verdict(Frozen):
    """May the challenger take the champion's place? `reasons` lists every gate with its numbers, and what is unusual
    about the holdout."""

    promote: bool
    reasons: list[str]
    failed: list[GateName] = []
    """The kinds of gates that failed. Empty also when a version that did not name them yet has judged."""
    primary: StoredMetric
    challenger: Metrics
    champion: Metrics | None
    champion_digest: str | None = None
    """Of the champion's model.onnx. None: there was none, or a version that did not say so yet has judged."""
    reference: Metrics = {}
    """Of the naive reference on the same rows."""
    skill: float | None = None
    """What of the way from the reference to a perfect model the challenger goes, in the primary metric."""
    difference: tuple[float, float] | None
    """Paired bootstrap interval of challenger minus champion in the primary metric."""
    confidence: float
    """Of each end of the interval: the spec's, raised for the number of candidates that were asked for."""
    robustness: Robustness | None = None
    cost: Cost | None = None
    latency: Latency | None = None
    stability: Stability | None = None
    """None also when the spec does not ask for other seeds."""
    leakage: Leakage | None = None
    slices: SliceResults | None = None
    calibration: CalibrationResult | None = None
    fairness: FairnessResult | None = None


class EvaluateResult(Frozen):
    challenger: Candidate
    champion_version: int | None
    verdict: Verdict
    metrics: dict[CandidateName, Metrics]
    """Holdout metrics of every candidate."""
    dropped_out: dict[CandidateName, str] = {}
    """Fits that were asked for and gave no candidate → why."""
    ask: list[str] = []
    """Why a person must decide about the challenger. Empty: nobody is asked, the verdict holds."""
    scored_rows: int
    report_uri: str


class RegisterInputs(ModelInputs):
    challenger: Candidate
    verdict: Verdict
    champion_version: int | None
    """The champion that the verdict was reached against; None: there was none."""
    force: bool = False
    """Register though the verdict was negative. Only a person may ask for this."""
    reason: str = ""
    run: str = ""
    """The orchestrator's id of the training run, the same in every retry."""
    requested_by: str = ""
    """The user who started the training run by hand; empty when none did."""


class RegisterResult(Frozen):
    version: int
    digest: str
    ask: bool = False
    """Whether a person must approve the version before its rollout."""
    roll_out: bool = True
    """Whether the training run rolls it out. False also when the request for its approval has ended: the approval run
    rolls it out, if it was approved."""
    judged_against: JudgedAgainst | None = None
    """The champion that must still serve when the rollout begins. None: any, the version was registered by force."""
    superseded: list[AskedRun] = []
    """Requests for the approval of older versions that this version has ended."""
