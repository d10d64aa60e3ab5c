"""What would have happened: worker processes compute it when a replay asks."""

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import date, timedelta
from typing import TypeVar

from training.contract.base import Days
from training.contract.messages import DriftResult, PerformanceResult, Verdict
from training.contract.model_spec import ModelSpec
from training.domain.identity import digest
from training.domain.replay import Judged, Replay, Served
from training.steps.backtest.jobs import Jobs
from training.steps.backtest.past_quality import Better, Value
from training.steps.backtest.past_trainings import Training, training_name

T = TypeVar("T", DriftResult, PerformanceResult)

#: Of a digest, in names of files.
_SHORT = 12
#: A new champion is compared with the one before for at most so many days.
COMPARED_DAYS = 28


class PastWorld:
    """The world of domain/replay.py. The models of its replays are named by their trainings."""

    def __init__(self, jobs: Jobs, spec: ModelSpec, estimators: Sequence[str]) -> None:
        self._jobs, self._spec, self._estimators = jobs, spec, sorted(estimators)
        self._trainings: dict[str, Future[Training]] = {}

    def stop(self) -> None:
        """End what is being computed. Whoever waits for it gets an error."""
        self._jobs.stop()

    def drift(self, day: date, champion: Served) -> DriftResult:
        return self._monitored("drift", DriftResult, day, champion)

    def performance(self, day: date, champion: Served) -> PerformanceResult:
        return self._monitored("performance", PerformanceResult, day, champion)

    def train(self, day: date, champion: Served, change: date | None) -> Judged:
        training = self.training(day, change).result()
        if training.challenger is None:
            return Judged("", False, training.failed)
        judged = self._verdict(training, self.trained(champion.model)).result()
        failed = [reason for reason in judged.reasons if not reason.startswith("passed")]
        return Judged(training.id, judged.promote, "; ".join(failed) or "All gates passed.")

    def training(self, day: date, change: date | None = None) -> Future[Training]:
        given = (day, change, self._estimators)
        name = f"trainings/{training_name(day, change)}-{digest(self._estimators, _SHORT)}"
        found = self._trainings[training_name(day, change)] = self._jobs.once(
            name, Training, "past_trainings:train", *given
        )
        return found

    def trained(self, model: str) -> Training:
        """The training whose challenger is called `model`."""
        return self._trainings[model].result()

    def value(self, week: Days, served: Sequence[tuple[date, Training]]) -> Future[Value]:
        """The primary metric on the events of `week`, when each of `served` answers from its day on."""
        names = [_digest(training) for _, training in served]
        later = [str(since) for since, _ in served[1:]]
        name = f"values/{week.start}-{len(week)}d-{digest([names, later], _SHORT)}"
        return self._jobs.once(name, Value, "past_quality:measure", week, list(served))

    def value_of(self, replayed: Replay, week: Days) -> Future[Value]:
        """The primary metric on the events of `week` under a replay."""
        first = replayed.serving(week.start)
        later = [each for each in replayed.served if week.start < each.since < week.end]
        return self.value(week, [(each.since, self.trained(each.model)) for each in (first, *later)])

    def better(self, replayed: Replay, number: int, until: date) -> Future[Better]:
        """Whether champion `number` of a replay, from 1, was better than the one before while it served."""
        old, new, *rest = replayed.served[number - 1 :]
        ends = [new.since + timedelta(days=COMPARED_DAYS), *(each.since for each in rest[:1]), until]
        days = Days(start=new.since, end=min(ends))
        both = [self.trained(each.model) for each in (new, old)]
        name = f"better/{days.start}-{days.end}-{digest([_digest(each) for each in both], _SHORT)}"
        return self._jobs.once(name, Better, "past_quality:compare", days, *both)

    def _monitored(self, monitor: str, result: type[T], day: date, champion: Served) -> T:
        training = self.trained(champion.model)
        settings = digest(self._spec.monitoring, _SHORT)
        name = f"{monitor}/{day}-{_digest(training)[:_SHORT]}-{champion.since}-{settings}"
        return self._jobs.once(name, result, f"past_monitors:{monitor}", day, training, champion.since).result()

    def _verdict(self, training: Training, champion: Training) -> Future[Verdict]:
        name = f"verdicts/{training.id}-{digest(self._estimators, _SHORT)}-{_digest(champion)[:_SHORT]}"
        return self._jobs.once(name, Verdict, "past_trainings:judge", training, champion)


def _digest(training: Training) -> str:
    assert training.challenger is not None
    return training.challenger.digest
