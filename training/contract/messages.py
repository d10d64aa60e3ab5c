"""Inputs and results of every step. Results are small: data moves by URI and version.

Inputs are explicit: no step asks for the time or for what is newest. Where an `as_of` may be None, that step is the one
that resolves it, and its result carries what it resolved to.
"""

from datetime import date, datetime
from typing import Any, Literal

from pydantic import Field, model_validator

from training.contract.base import Days, Frozen, TableVersions
from training.contract.model_spec import EstimatorName, Feed, Metric, Name, Trigger

Metrics = dict[Metric, float]


class StepInputs(Frozen):
    model: Name


# --- data ---


class IngestInputs(StepInputs):
    feed: Feed
    partition: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}(_\d{4}-\d{2}-\d{2})?$")
    """The days that it promises: `2026-01-05`, or `2026-01-05_2026-01-18`, both ends in, for a load of past days."""
    uri: str


class IngestResult(Frozen):
    outcome: Literal["appended", "replaced", "unchanged"]
    content_sha256: str
    rows_read: int
    rows_kept: int
    rows_quarantined: int
    quarantine_reasons: dict[str, int]
    """Rule that was broken → rows."""
    affected: Days | None
    """Feature days that must be computed again; None when no feature can have changed."""
    table_versions: TableVersions
    data_docs: str | None
    """Great Expectations' page about this partition."""


class FeaturesInputs(StepInputs):
    days: Days | None
    """Feature timestamps (midnight, UTC) to compute; None: nothing to do."""
    table_versions: TableVersions
    """Versions of `events` and `labels` to read."""


class FeaturesResult(Frozen):
    rows: dict[str, int]
    table_versions: TableVersions
    """What was read and what was written."""


class MaterializeInputs(StepInputs):
    table_versions: TableVersions
    """Versions of the feature tables to read."""


class MaterializeResult(Frozen):
    as_of: date | None
    """Day of the newest feature rows, which are now online; None when there are no feature rows yet."""
    rows: dict[str, int]
    table_versions: TableVersions


# --- training ---


class DatasetInputs(StepInputs):
    as_of: date | None = None
    """The knowledge horizon: nothing that happened or was reported at or after this midnight is used.
    None: the day after the newest labels, resolved here."""
    window_days: int | None = Field(None, ge=1)
    """Overrides the spec's training.window_days."""
    seed: int | None = None
    table_versions: TableVersions | None = None
    """Versions of events, labels and the feature tables to read, to make an old dataset again.
    None: the newest, resolved here."""


class Split(Frozen):
    days: Days
    uri: str
    rows: int
    positives: int


class DatasetResult(Frozen):
    dataset_id: str
    uri: str
    as_of: date
    feature_service: str
    feature_names: list[str]
    """In the order in which models take them."""
    train: Split
    holdout: Split
    seed: int
    table_versions: TableVersions


class TrainInputs(StepInputs):
    estimator: EstimatorName
    parameters: dict[str, Any] = {}
    """Override the spec's parameters."""
    dataset_uri: str
    seed: int
    reason: str = ""


class TrainResult(Frozen):
    estimator: EstimatorName
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
    run_id: str
    artifact_uri: str
    digest: str


class EvaluateInputs(StepInputs):
    candidates: list[Candidate] = Field(min_length=1)
    dataset_uri: str
    seed: int

    @model_validator(mode="after")
    def _one_of_each_estimator(self) -> "EvaluateInputs":
        names = [candidate.estimator for candidate in self.candidates]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"more than one candidate is a {', '.join(doubled)}: name one of each estimator")
        return self


class Verdict(Frozen):
    """May the challenger take the champion's place? `reasons` lists every gate with its numbers."""

    promote: bool
    reasons: list[str]
    primary: Metric
    challenger: Metrics
    champion: Metrics | None
    difference: tuple[float, float] | None
    """Paired bootstrap interval of challenger minus champion in the primary metric."""
    confidence: float
    """Of each end of the interval: the spec's, widened for the number of candidates."""


class EvaluateResult(Frozen):
    challenger: Candidate
    champion_version: int | None
    verdict: Verdict
    metrics: dict[EstimatorName, Metrics]
    """Estimator → holdout metrics of every candidate."""
    scored_rows: int
    report_uri: str


class RegisterInputs(StepInputs):
    challenger: Candidate
    dataset_uri: str
    verdict: Verdict
    champion_version: int | None
    """The champion that the verdict was reached against; None: there was none."""
    force: bool = False
    """Register though the verdict was negative. Only a person may ask for this."""
    reason: str = ""


class RegisterResult(Frozen):
    version: int | None
    """None: the verdict was negative and nothing was registered."""
    digest: str


# --- rollout ---


class RolloutInputs(StepInputs):
    version: int | None
    """None: nothing was registered, nothing to do."""
    reason: str = ""


class RollbackInputs(StepInputs):
    version: int | None = None
    """None: the version that the alias `previous` names, resolved here."""
    reason: str = ""
    run: str = ""
    """The orchestrator's run id, the same in every retry. Without a version, a rollback is known by it, or by its
    reason where there is none: asked for again, it changes nothing."""


class Replica(Frozen):
    url: str
    replica: str
    version: int
    since: datetime


class RolloutResult(Frozen):
    version: int | None
    previous_version: int | None
    replicas: list[Replica]
    seconds: float


# --- watching ---


class DriftInputs(StepInputs):
    as_of: date | None = None
    """None: the day after the newest events, resolved here."""


class ColumnDrift(Frozen):
    score: float
    threshold: float
    method: str
    drifted: bool


class DriftResult(Frozen):
    outcome: Literal["measured", "no champion", "no data"]
    as_of: date | None
    """The knowledge horizon: events and labels before this midnight."""
    history_days: int = 0
    """Days of events before `as_of`."""
    window: Days | None = None
    champion_version: int | None = None
    drifted: bool = False
    drifted_share: float = 0.0
    columns: dict[str, ColumnDrift] = {}
    report_html: str | None = None
    report_json: str | None = None
    table_versions: TableVersions = {}


class PerformanceInputs(StepInputs):
    as_of: date | None
    """As resolved by `drift`; None: nothing to measure."""
    champion_version: int | None = None


class PerformanceResult(Frozen):
    outcome: Literal["measured", "no champion", "too few labels", "no predictions"]
    window: Days | None = None
    rows: int = 0
    positives: int = 0
    current: Metrics = {}
    reference: Metrics = {}
    """The champion's on its own holdout."""
    degraded: bool = False
    table_versions: TableVersions = {}


# --- the broker ---


class RequestInputs(StepInputs):
    """One trigger for training, put to the broker; or a granted request that a training run takes up.

    - A run that starts by itself: `trigger` (schedule, person, …) and `run`.
    - A look at what was found: `drift` and `performance`, no `trigger`; the step finds the reason to train, if any.
    - A run that takes up a granted request: `request_id` and `run`.
    """

    trigger: Trigger | None = None
    """None: derived from `drift` and `performance`, or read from the request `request_id`."""
    as_of: date | None = None
    """None: as found by `drift`; else left to the dataset step."""
    reason: str = ""
    evidence: dict[str, Any] = {}
    drift: DriftResult | None = None
    performance: PerformanceResult | None = None
    force: bool = False
    """Train whatever the policy says. Only a person may."""
    request_id: str | None = None
    """A request that was granted before and now starts: its id in the ledger."""
    run: str = ""
    """The orchestrator's id of the training run that starts with this request, the same in every retry.
    A granted request is taken up by one run. Empty: no run starts now, a granted request waits."""
    failed: bool = False
    """With request_id and run: the run that took the request up has failed, the request may wait for another."""


class RequestResult(Frozen):
    request_id: str | None
    """None: there was no reason to train, and nothing was put to the broker."""
    granted: bool
    """Whether to train: for this `run` when one was given, else in a run that takes the request up."""
    why: str
    """Why, in a sentence: what a person reads in the task log."""
    as_of: date | None
    trigger: Trigger | None
    reason: str
    waiting: list[str]
    """Granted requests that no run has taken up yet, oldest first."""


class Provenance(Frozen):
    """What made a result: enough to make it again."""

    git_sha: str | None = None
    image: str | None = None
    config_hash: str | None = None
    table_versions: TableVersions = {}


class Failure(Frozen):
    type: str
    message: str
    retryable: bool
    hint: str = ""


class StepReport(Frozen):
    """The result file. A missing one means unknown, never success."""

    schema_version: Literal[1] = 1
    step: str
    status: Literal["succeeded", "failed"]
    result: dict[str, Any] | None = None
    error: Failure | None = None
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _result_or_error(self) -> "StepReport":
        given = [name for name in ("result", "error") if getattr(self, name) is not None]
        if given != (["result"] if self.status == "succeeded" else ["error"]):
            raise ValueError("a succeeded step has a result and no error; a failed one has an error")
        return self
