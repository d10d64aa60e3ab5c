"""The replay of history under several retraining policies."""

from datetime import date

from pydantic import Field

from training.contract.base import Days, Frozen
from training.contract.messages.inputs import ModelInputs
from training.contract.names import EstimatorName, Metric, Name
from training.contract.tasks import Margin


class BacktestInputs(ModelInputs):
    policies: list[Name] = []
    """The policies to compare. Empty: all of them."""
    start: date | None = None
    """The day as of which the first champion is trained. None: the first day with enough history."""
    end: date | None = None
    """The day after the last one that counts. None: the day after the last one whose labels have matured."""
    look_every_days: int = Field(7, ge=1)
    """Monitors look, and schedules train, on every such day of the period. Running time grows with the looks."""
    price: Margin | None = None
    """What a training costs, in units of the primary metric of one week: absolute, or relative to the first champion's
    mean. A training that makes one week better by this much has paid for itself. None: by `retraining.costs` of the
    spec; without those, `{relative: 0.02}`."""
    estimators: list[EstimatorName] = []
    """Those of the spec to train. Empty: all of them."""
    processes: int | None = Field(None, ge=1)
    """How many trainings and looks are computed at once. None: as many as this process may use cores."""


class Interval(Frozen):
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:+.4g} to {self.high:+.4g}"


class Standing(Frozen):
    """What a policy did in the weeks that count, and what it cost."""

    policy: str
    quality: float
    """The mean of the primary metric over the weeks."""
    trainings: int
    promoted: int = 0
    false_trainings: int = 0
    """Trainings that brought nothing: they failed, the verdict kept the champion, or the new champion was not better
    than the one before, beyond chance, in the four weeks after it began to serve or until the next one did."""
    refused: int = 0
    """Requests that the broker refused."""
    cost: float
    """Of a week, with its share of the price of the trainings. Lower is better."""
    regret: float
    """The cost of a week above that of the best trainings in hindsight."""
    regret_interval: Interval | None = None


class Recommendation(Frozen):
    """The policy with the lowest cost, and how sure that is."""

    policy: str
    best_in: dict[str, float]
    """Policy → the share of bootstrap samples of the weeks in which it has the lowest cost."""
    costs_more: dict[str, Interval]
    """Policy → by how much a week of it costs more than one of the recommended policy."""
    confidence: float
    """Of the intervals."""
    alike: list[str]
    """Policies whose cost does not differ beyond chance from that of the recommended one: their interval has 0 in
    it."""

    def __str__(self) -> str:
        if not self.costs_more:
            return f"{self.policy} is the only policy: there is none to compare it with."
        sure = f"{self.policy} has the lowest cost, in {self.best_in[self.policy]:.0%} of the samples of the weeks"
        if not self.alike:
            return f"{sure}. Every other policy costs more, at {self.confidence:.0%} confidence."
        return f"{sure}. Not worse beyond chance, at {self.confidence:.0%} confidence: {', '.join(self.alike)}."


class BacktestResult(Frozen):
    days: Days
    """From the day as of which the first champion was trained."""
    weeks: int
    """The weeks in which all policies could be measured."""
    metric: Metric
    price: float
    """Of a training, in units of the metric in one week."""
    standings: list[Standing]
    """In the order of their cost. `oracle` is what would have been best in hindsight."""
    recommendation: Recommendation
    report_uri: str
    """report.json; report.md and pictures lie beside it."""
    run_id: str
    """Of the run in MLflow."""
