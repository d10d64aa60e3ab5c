"""Replay all policies side by side, and rank them."""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from training.adapters.lake import EVENTS, Lake
from training.adapters.tables import covered
from training.contract.base import Days, Frozen
from training.contract.errors import DataContractError, InputError
from training.contract.messages import BacktestInputs, BacktestResult, Standing
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.names import did_you_mean
from training.contract.tasks import Relative, allowed
from training.domain.backtest import best_in_hindsight, costs_of, price_of, recommend, regret_interval, weekly_costs
from training.domain.replay import POLICIES, Replay, Served, look_days, replay, weeks
from training.domain.retraining import history_needed
from training.domain.task_kind import task_of
from training.settings import StateSettings
from training.snapshots import champion_version
from training.steps.backtest.jobs import Jobs
from training.steps.backtest.own_state import Place, make_place
from training.steps.backtest.past_events import PastEvents, mondays
from training.steps.backtest.past_quality import known_days
from training.steps.backtest.past_world import PastWorld
from training.steps.backtest.published import Findings, publish

log = logging.getLogger("perennial")

ORACLE = "oracle"
CONFIDENCE = 0.9
DEFAULT_PRICE = Relative(relative=0.02)


def compare_policies(inputs: BacktestInputs, settings: StateSettings) -> BacktestResult:
    """See `run` of the package."""
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    policies, estimators = _policies(inputs), _estimators(inputs, spec)
    # It gets the run at the end, after a long time. Fail now when it does not answer.
    champion_version(spec, settings)
    place = make_place(spec, settings)
    period = _period(inputs, spec, place)
    with Jobs(place, inputs.processes or os.cpu_count() or 1) as jobs:
        world = PastWorld(jobs, spec, estimators)
        first, period = _first(world, period, inputs.look_every_days)
        log.info("%s, %d looks; what is computed is kept in %s", period, len(_looks(inputs, period)), place.folder)
        _prepare(jobs, place, spec, period)
        comparison = _Comparison(inputs, spec, world, period, first, policies, _events_of_a_week(place, period))
        findings = comparison.findings()
    return publish(findings, inputs, place, spec, settings)


def _policies(inputs: BacktestInputs) -> list[str]:
    known = [*POLICIES, ORACLE]
    for name in inputs.policies:
        if name not in known:
            hint = f"{did_you_mean(name, known)}The policies: {', '.join(known)}."
            raise InputError(f"There is no policy {name!r}", hint)
    chosen = [name for name in inputs.policies or known if name != ORACLE]
    if not chosen:
        raise InputError("The oracle alone cannot be recommended", hint="Name another policy as well.")
    return chosen


def _estimators(inputs: BacktestInputs, spec: ModelSpec) -> list[str]:
    if unknown := sorted(set(inputs.estimators) - set(spec.training.estimators)):
        hint = f"It has {', '.join(spec.training.estimators)}."
        raise InputError(f"The spec of {spec.name} has no estimator {', '.join(unknown)}", hint)
    return list(inputs.estimators or spec.training.estimators)


def _period(inputs: BacktestInputs, spec: ModelSpec, place: Place) -> Days:
    """From the first look to the last day whose labels have matured."""
    if inputs.start and inputs.end and inputs.end <= inputs.start:
        hint = "Name the day of the first champion's training first, and a later one as the end."
        raise InputError(f"The backtest would end on {inputs.end}, which is not after its start, {inputs.start}", hint)
    lake = Lake(place.settings.lake, spec.source.name, spec.name)
    events = covered(lake, spec.source, EVENTS, place.versions[EVENTS])
    if events is None:
        raise DataContractError(f"{lake.uri(EVENTS)} is empty", hint="Land events first.")
    start = inputs.start or events.start + timedelta(days=history_needed(spec))
    matured = min(events.end, place.horizon - timedelta(days=spec.label_spec.delay_days))
    end = min(inputs.end or matured, matured)
    if (end - start).days < 2 * inputs.look_every_days + 7:
        raise DataContractError(
            f"From {start} to {end} there is too little to replay: the first champion needs {history_needed(spec)} days"
            f" of events before it, labels have matured until {end}, and policies look every {inputs.look_every_days} "
            "days",
            hint="Choose an earlier start or a later end, or land more history.",
        )
    return Days(start=start, end=end)


def _looks(inputs: BacktestInputs, period: Days) -> list[date]:
    return look_days(period, inputs.look_every_days)


def _first(world: PastWorld, period: Days, every: int) -> tuple[Served, Days]:
    """The first champion, and the period that begins with its training: the first that the verdict promotes."""
    day, why = period.start, ""
    while (period.end - day).days >= 2 * every + 7:
        training = world.training(day).result()
        if training.first is not None and training.first.promote:
            served = Served(model=training.id, version=1, since=day + timedelta(days=1))
            return served, Days(start=day, end=period.end)
        reasons = training.first.reasons if training.first else [training.failed]
        why = "; ".join(reason for reason in reasons if not reason.startswith("passed"))
        log.info("No first champion as of %s: %s", day, why)
        day += timedelta(days=every)
    raise DataContractError(f"No first champion can be trained in {period}: {why}", hint="Choose a later start.")


class Prepared(Frozen):
    """A week whose features are computed."""

    week: date


def prepare(place: Place, week: date) -> Prepared:
    PastEvents(place).compute(week)
    return Prepared(week=week)


def _prepare(jobs: Jobs, place: Place, spec: ModelSpec, period: Days) -> None:
    """The features of all events that monitors and measurements read."""
    back = known_days(spec) + spec.monitoring.window_days + spec.label_spec.delay_days
    needed = Days(start=period.start - timedelta(days=back), end=period.end)
    for made in [jobs.once(f"events/{w}", Prepared, "compared_policies:prepare", w) for w in mondays(needed)]:
        made.result()


def _events_of_a_week(place: Place, period: Days) -> float:
    past = PastEvents(place)
    return sum(past.count(week) for week in mondays(period)) / len(mondays(period))


@dataclass(frozen=True)
class _Comparison:
    inputs: BacktestInputs
    spec: ModelSpec
    world: PastWorld
    period: Days
    first: Served
    policies: Sequence[str]
    predictions: float
    """The events of a week."""

    def findings(self) -> Findings:
        task, primary = task_of(self.spec), self.spec.evaluation.primary
        if not self.predictions:
            raise DataContractError(f"There are no events in {self.period}", hint="Choose a period with events.")
        # All at once, so that no process waits: the schedule and the oracle ask for them anyway.
        grid = {week: self.world.training(week.start - timedelta(days=1)) for week in self.weeks} if self.oracle else {}
        price, own = self._price(), self.spec.retraining.costs
        declared = price_of(own, self.predictions) == price
        replays = self._replays(price)
        values = {
            name: self._values([self.world.value_of(each, w) for w in self.weeks]) for name, each in replays.items()
        }
        if self.oracle:
            replays[ORACLE] = self._oracle(grid, price, task.rules[primary].sign)
            values[ORACLE] = self._values([self.world.value_of(replays[ORACLE], w) for w in self.weeks])
        measured = np.asarray(np.isfinite(list(values.values())).all(axis=0))
        if not measured.any():
            raise DataContractError(f"{primary} is defined in no week of {self.period}", hint="Choose a longer period.")
        costs = {
            name: weekly_costs(each, self._begun(replays[name]), task.rules[primary].sign, price)[measured]
            for name, each in values.items()
        }
        possible = {name: each for name, each in costs.items() if name != ORACLE}
        standings = [self._standing(replays[name], values[name][measured], costs) for name in replays]
        return Findings(
            days=self.period,
            weeks=self.weeks,
            metric=primary,
            price=price,
            values=values,
            costs=costs,
            measured=measured,
            replays=replays,
            standings=sorted(standings, key=lambda each: each.cost),
            recommendation=recommend(possible, CONFIDENCE, self.spec.training.seed),
            costs_to_declare=None if declared else costs_of(price, self.predictions, own),
        )

    @property
    def weeks(self) -> list[Days]:
        return weeks(self.period)

    @property
    def oracle(self) -> bool:
        return not self.inputs.policies or ORACLE in self.inputs.policies

    def _price(self) -> float:
        """Of a training, in units of the metric in one week."""
        costs = self.spec.retraining.costs
        if self.inputs.price is None and (found := price_of(costs, self.predictions)) is not None:
            return found
        training = self.world.trained(self.first.model)
        values = self._values([self.world.value(week, [(week.start, training)]) for week in self.weeks])
        if np.isnan(values).all():
            return 0.0
        # 0 is a price: trainings may cost nothing.
        price = DEFAULT_PRICE if self.inputs.price is None else self.inputs.price
        return allowed(price, float(np.nanmean(values)))

    def _replays(self, price: float) -> dict[str, Replay]:
        looks, retraining = _looks(self.inputs, self.period), self.spec.retraining
        costs = costs_of(price, self.predictions, retraining.costs)
        spec = self.spec.model_copy(update={"retraining": retraining.model_copy(update={"costs": costs})})
        with ThreadPoolExecutor(len(self.policies)) as threads:
            given = {name: (POLICIES[name], looks, self.first, self.world, spec) for name in self.policies}
            running = {name: threads.submit(replay, *each) for name, each in given.items()}
            try:
                found = {name: each.result() for name, each in running.items()}
            except BaseException:
                self.world.stop()  # The other threads wait for results.
                raise
        for name, each in found.items():
            log.info("%s: %d trainings", name, len(each.trainings))
        return found

    def _values(self, asked: Sequence[Future]) -> np.ndarray:
        return np.array([np.nan if (value := each.result().value) is None else value for each in asked])

    def _oracle(self, grid: Mapping[Days, Future], price: float, sign: int) -> Replay:
        """The best trainings in hindsight, one at the beginning of a week at most. The verdict is not asked."""
        trained = [self.world.trained(self.first.model), *(grid[week].result() for week in self.weeks)]
        asked = {
            (model, number): self.world.value(week, [(week.start, training)])
            for model, training in enumerate(trained)
            for number, week in enumerate(self.weeks)
            if training.challenger is not None and number >= model - 1
        }
        losses = np.full((len(trained), len(self.weeks)), np.nan)
        for place, value in asked.items():
            found = value.result().value
            # A week in which the metric is not defined counts for no model.
            losses[place] = 0.0 if found is None else -sign * found
        chosen, served = best_in_hindsight(losses, price), [self.first]
        for week in chosen.trained:
            model = trained[week + 1].id
            served.append(Served(model=model, version=len(served) + 1, since=self.weeks[week].start))
        return Replay(policy=ORACLE, served=served)

    def _begun(self, replayed: Replay) -> list[int]:
        """For each training the number of the week that it began in: it serves from the next day on at the earliest."""
        days = [each.day for each in replayed.trainings] or [
            each.since - timedelta(days=1) for each in replayed.served[1:]
        ]
        last = len(self.weeks) - 1
        return [min((day - self.period.start).days // 7, last) for day in days]

    def _standing(self, replayed: Replay, values: np.ndarray, costs: Mapping[str, np.ndarray]) -> Standing:
        name, trained = replayed.policy, replayed.trainings
        until = self.weeks[-1].end
        improved = [
            self.world.better(replayed, number, until)
            for number, each in enumerate(replayed.served)
            if number and each.since < until
        ]
        better = sum(each.result().better for each in improved) + len(replayed.served) - 1 - len(improved)
        trainings = len(trained) or len(replayed.served) - 1
        best = costs.get(ORACLE, min(costs.values(), key=np.mean))
        regret = None if name == ORACLE else regret_interval(costs[name], best, CONFIDENCE, self.spec.training.seed)
        return Standing(
            policy=name,
            quality=float(values.mean()),
            trainings=trainings,
            promoted=len(replayed.served) - 1,
            false_trainings=trainings - better,
            refused=len(replayed.asked) - len(trained),
            cost=float(costs[name].mean()),
            regret=float((costs[name] - best).mean()),
            regret_interval=regret,
        )
