"""What a verdict knows of a challenger beside its metrics. Each record is None in a verdict of an earlier version."""

from training.contract.base import Frozen
from training.contract.names import Metric


class Perturbation(Frozen):
    """Features of the holdout were changed in one way."""

    name: str
    """`noise`, `missing` or `boundary`: the limit in evaluation.robustness.maximum_changed."""
    described: str
    """What was done."""
    columns: int
    """How many were changed."""
    rows: int
    """That were scored."""
    changed: float | None
    """The mean change of a prediction: where there are decisions the share that flips. None: it has no number."""
    maximum: float | None
    """The limit."""
    by_decision: dict[str, float] = {}
    """Decision before → the share of its rows that has another one afterwards; the decisions that change most."""
    worst: dict[str, float] = {}
    """Change of one column → the mean change of a prediction; the largest ones."""
    not_finite: int = 0
    """Rows whose prediction is not a number."""


class Robustness(Frozen):
    rows: int
    """Rows of the holdout that were changed."""
    unit: str
    """What a change is."""
    tests: list[Perturbation]


class PartCost(Frozen):
    """Of a part of the training. None: not known."""

    seconds: float | None
    cpu_seconds: float | None
    gpu_seconds: float | None
    price: float | None


class Cost(Frozen):
    """None: not known."""

    seconds: float | None
    """On the clock, of search and fit; of the last try when the step was resumed. Parts of a search that ran at once
    count as if they had run one after the other."""
    cpu_seconds: float | None
    """Of all processes."""
    gpu_seconds: float | None
    price: float | None
    """Of the machines, with the prices in retraining.costs."""
    unit: str = ""
    """The currency."""
    model_bytes: int | None
    """Of model.onnx."""
    search: PartCost | None = None
    """What the search for parameters took of it. None: there was no search, or it is not known."""
    fit: PartCost | None = None
    """The rest: the fit with the parameters that the search found, and the export."""


class Latency(Frozen):
    """Of one row, in milliseconds."""

    p50_ms: float
    p99_ms: float
    """Of the best round."""
    rounds_p99_ms: list[float]
    """Of each round."""
    calls: int
    """Of one round."""


class Stability(Frozen):
    metric: Metric
    """The primary one."""
    own_seed: int
    values: dict[int, float]
    """Seed → the metric on the holdout. The challenger's own seed is among them."""
    failed: dict[int, str] = {}
    """Seed → why the fit failed."""
    deviation: float | None
    """The standard deviation of the values. None: a fit failed, or there is one value only."""
    gain: float | None
    """What the challenger is better by than the champion; negative when it is worse. None: they cannot be compared."""


class Leakage(Frozen):
    model_explains: dict[str, float] = {}
    """Output → how much of it the whole model explains, from 0 to 1; the outputs of which one feature explains most."""
    explains: dict[str, dict[str, float]] = {}
    """Feature → output → how much it explains alone; the features that explain most."""
    suspects: list[str] = []
    """Features that explain too much."""
    former: dict[int, float] = {}
    """Version of a former champion → the primary metric on its own holdout."""
