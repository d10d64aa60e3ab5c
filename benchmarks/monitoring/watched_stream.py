"""What monitoring finds in a stream, through the functions that the steps call. The champion stays the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from training.adapters.onnx_model import OnnxScorer
from training.contract.base import Days, midnight
from training.contract.messages import ColumnDrift, DriftResult, PerformanceResult, Snapshot
from training.contract.model_spec import ModelSpec, Trigger
from training.contract.registries import DRIFT_TESTS
from training.domain.comparison import Rows, named_outputs, paired, representatives, sample, spread
from training.domain.drift import current_window, has_drifted, judged, tested
from training.domain.entity_age import LOOK_BACK, age_name, ages
from training.domain.evaluation_set import EvaluationSet, clusterings
from training.domain.frames import LABEL, REPORTED_AT
from training.domain.labels import known_before
from training.domain.looks import chance_of_error, look_number
from training.domain.metrics import standard_error
from training.domain.monitoring import Look as MonitoringLook
from training.domain.performance import Beside, Measured, degradation, matured_window
from training.domain.retraining import Decision, History, Request
from training.domain.retraining_decision import decide
from training.domain.retraining_policy import Advice, Evidence, advise
from training.domain.task_kind import Fitting, Scored, ServedTask, TaskKind, task_of
from training.domain.windows import Windows, event_days, windows
from training.estimators.base import TrainingData, load, number_columns, parameters_for

ESTIMATOR = "hist_gradient_boosting"
SCORE = "_score"
#: The body of a ledger entry.
Body: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Champion:
    """A version that serves from `as_of` on, and what monitoring compares with."""

    spec: ModelSpec
    task: TaskKind
    served: ServedTask
    names: list[str]
    as_of: date
    windows: Windows
    scorer: OnnxScorer
    #: A sample of the training rows.
    reference: pd.DataFrame
    #: Name → values that represent those of the holdout.
    outputs: Mapping[str, np.ndarray]
    #: The primary metric on the holdout.
    holdout: Measured

    @classmethod
    def trained(cls, rows: pd.DataFrame, names: list[str], spec: ModelSpec, warm_up: date) -> "Champion":
        """Trained as the steps do, on a training window that begins at `warm_up`."""
        delay, training = spec.label_spec.delay_days, spec.training
        rows = with_ages(rows, spec)
        as_of = warm_up + timedelta(days=training.window_days + training.holdout_days + 2 * delay)
        chosen, task = windows(as_of, training.window_days, training.holdout_days, delay), task_of(spec)
        train, holdout = _within(rows, chosen.train, spec), _within(rows, chosen.holdout, spec)
        truth, classes = task.encode(task.truth(train[LABEL].to_numpy()))
        estimator = load(ESTIMATOR)
        parameters = parameters_for(ESTIMATOR, estimator, task.target, training.estimators.get(ESTIMATOR, {}))
        data = TrainingData(train[names].to_numpy(np.float32), truth, number_columns(names), task.target)
        with threadpool_limits(1):  # Several seeds share the cores.
            scorer = OnnxScorer(estimator.fit(data, parameters, training.seed).onnx())
        scores = scorer.score(holdout[names].to_numpy(np.float32))
        served = task.fit(Fitting(classes, scores))
        kept = representatives(served.monitored(scores))
        outputs = {name: spread(np.array(kept[name]), len(scores)) for name in kept}
        reference = sample(train.reset_index(drop=True), spec.monitoring.maximum_rows, training.seed)
        counted = evaluated(holdout.assign(**{SCORE: scores}), rows, chosen.train.start, spec)
        measured = _measured(*_scored(counted, task, served), task)
        return cls(spec, task, served, names, as_of, chosen, scorer, reference, outputs, measured)


@dataclass(frozen=True)
class Look:
    """What one monitoring run found and what the broker made of it."""

    as_of: date
    drift: DriftResult
    performance: PerformanceResult
    #: What asks for a training, the strongest first.
    triggers: tuple[Trigger, ...]
    #: None when there was no reason to train.
    granted: bool | None


@dataclass(frozen=True)
class Watch:
    """The looks at a stream with a champion. `rows` reach back to its training window."""

    champion: Champion
    rows: pd.DataFrame
    #: The watch that this one goes on from, which several may share.
    before: "Watch | None" = None
    #: What is known of other windows than the one that is judged.
    others: dict[Days, Measured | None] = field(default_factory=dict)

    @classmethod
    def of(cls, champion: Champion, rows: pd.DataFrame) -> "Watch":
        return cls(champion, _answered_by(champion, with_ages(rows, champion.spec)))

    def going_on(self, rows: pd.DataFrame) -> "Watch":
        """With `rows` after the others, from the beginning of a day on."""
        time = self.champion.spec.source.events.time_column
        recent = self.rows[self.rows[time] >= rows[time].iloc[0].floor("D") - LOOK_BACK]
        added = _answered_by(self.champion, with_ages(rows, self.champion.spec, recent))
        return Watch(self.champion, pd.concat([self.rows, added], ignore_index=True), self)

    @property
    def until(self) -> datetime:
        """The end of the last day."""
        last: pd.Timestamp = self.rows[self.champion.spec.source.events.time_column].iloc[-1]
        return (last.floor("D") + timedelta(days=1)).to_pydatetime()

    def looks(self, days: Days, every: int) -> Iterator[Look]:
        """The looks as of every `every` days of `days`, with a broker that begins without history."""
        spec, requests, decisions, seen = self.champion.spec, list[Body](), list[Body](), list[MonitoringLook]()
        for at in range(0, len(days), every):
            as_of = days.start + timedelta(days=at)
            drift, performance = self.drift(as_of), self.performance(as_of)
            evidence = Evidence(as_of, 1, drift, performance)
            history = History.of(requests, decisions, seen)
            advice, granted = advise(evidence, history, spec), None
            if advice.asks:
                request = _request(as_of, advice)
                decision = decide(request, history, spec.retraining, spec.monitoring.window_days)
                granted = decision.outcome == "granted"
                requests.append(request.model_dump(mode="json"))
                taken = [Decision(request_id=request.id, outcome="taken", run=request.id)] if granted else []
                decisions += [each.model_dump(mode="json") for each in (decision, *taken)]
            yield Look(as_of, drift, performance, advice.triggers, granted)
            seen += [evidence.look] if evidence.look else []

    def drift(self, as_of: date) -> DriftResult:
        champion, spec = self.champion, self.champion.spec
        window = current_window(as_of, spec.monitoring.window_days)
        rows, snapshot = _within(self.rows, window, spec), _snapshot(as_of)
        if len(rows) < spec.monitoring.minimum_rows:
            return DriftResult(outcome="no data", snapshot=snapshot)
        rows = sample(rows.reset_index(drop=True), spec.monitoring.maximum_rows, spec.training.seed)
        columns = self._compared(rows, look_number(window, champion.windows.holdout, spec.monitoring.window_days))
        drifted, share = has_drifted(columns, spec.monitoring.maximum_drifted_share)
        return DriftResult(
            outcome="measured", window=window, drifted=drifted, drifted_share=share, columns=columns, snapshot=snapshot
        )

    def _compared(self, rows: pd.DataFrame, look: int) -> dict[str, ColumnDrift]:
        champion, spec = self.champion, self.champion.spec
        names = [*champion.names, *map(age_name, spec.entity_columns)]
        reference, now = (Rows(side[names], side[spec.drift_keys]) for side in (champion.reference, rows))
        outputs = champion.served.monitored(rows[SCORE].to_numpy())
        pairs = [
            (reference, now),
            (Rows(named_outputs(champion.outputs), None), Rows(named_outputs(outputs), rows[spec.drift_keys])),
        ]
        monitoring, time = spec.monitoring, spec.source.events.time_column
        sides = [paired(before, after, spec.entity_columns, time) for before, after in pairs]
        chance = chance_of_error(monitoring.confidence, look, monitoring.window_days)
        test, minimum, new = DRIFT_TESTS.find(monitoring.test), monitoring.minimum_shift, monitoring.minimum_new_share
        return judged({}, tested(sides, test, minimum, chance, new))

    def performance(self, as_of: date) -> PerformanceResult:
        champion, spec, task = self.champion, self.champion.spec, self.champion.task
        window = matured_window(as_of, spec.monitoring.window_days, spec.label_spec.delay_days)
        rows, snapshot = self._answered(window), _snapshot(as_of)
        if rows.empty:
            return PerformanceResult(outcome="no predictions", window=window, snapshot=snapshot)
        truth = task.truth(rows[LABEL].to_numpy())
        lacks = task.lacks_to_measure(truth, spec.monitoring.minimum_class_rows)
        result = PerformanceResult(
            outcome="measured", window=window, rows=len(rows), counts=task.counts(truth), lacks=lacks, snapshot=snapshot
        )
        if lacks:
            return result.model_copy(update={"outcome": "too few labels"})
        primary = spec.evaluation.primary
        now = _measured(*_scored(rows, task, champion.served), task)
        beside = Beside.of(champion.windows.holdout.end, window, self._other)
        look = look_number(window, champion.windows.holdout, spec.monitoring.window_days)
        test = degradation(now, champion.holdout, primary, task.rules[primary], look, spec.monitoring, beside)
        found = {"current": {primary: now.value}, "reference": {primary: champion.holdout.value}}
        return result.model_copy(update={**found, "test": test, "degraded": bool(test and test.degraded)})

    def _answered(self, window: Days) -> pd.DataFrame:
        """The rows of `window` that the champion has answered and evaluation counts."""
        champion, spec = self.champion, self.champion.spec
        rows = _within(self.rows, window, spec)
        rows = rows[rows[spec.source.events.time_column] >= midnight(champion.as_of)]
        back = champion.windows.holdout.start - champion.windows.train.start
        return evaluated(rows, self.rows, window.start - back, spec)

    def _other(self, window: Days) -> Measured | None:
        """The primary metric on another window; None with too few labels."""
        if self.before is not None and midnight(window.end) <= self.before.until:
            return self.before._other(window)
        if window not in self.others:
            task, rows = self.champion.task, self._answered(window)
            truth, minimum = task.truth(rows[LABEL].to_numpy()), self.champion.spec.monitoring.minimum_class_rows
            few = task.lacks_to_measure(truth, minimum)
            self.others[window] = None if few else _measured(*_scored(rows, task, self.champion.served), task)
        return self.others[window]


def _answered_by(champion: Champion, rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**{SCORE: champion.scorer.score(rows[champion.names].to_numpy(np.float32))})


def with_ages(rows: pd.DataFrame, spec: ModelSpec, earlier: pd.DataFrame | None = None) -> pd.DataFrame:
    """With how long the entities were known. `earlier` are the rows before, if `rows` do not begin the stream."""
    columns = [spec.source.events.time_column, *spec.entity_columns]
    events = pd.concat([each[columns] for each in (earlier, rows) if each is not None], ignore_index=True)
    days, seen_on = (event_days(each[columns[0]]) for each in (rows, events))
    found = {}
    for name in spec.entity_columns:
        seen = pd.DataFrame({name: events[name], "day": seen_on}).drop_duplicates()
        found[age_name(name)] = ages(rows[name], days, seen, seen_on[0].item())
    return rows.assign(**found)


def evaluated(rows: pd.DataFrame, events: pd.DataFrame, since: date, spec: ModelSpec) -> pd.DataFrame:
    """`rows` without those of entities that a positive label of `events` since then had made known."""
    if not spec.evaluation.exclude_known_entities or rows.empty:
        return rows
    until = rows[spec.source.events.time_column].max().date() + timedelta(days=1)
    before = _within(events, Days(start=since, end=until), spec)
    identity = spec.source.id_column
    return rows[~known_before(rows, before[[identity, LABEL, REPORTED_AT]], before, spec)]


def _within(rows: pd.DataFrame, days: Days, spec: ModelSpec) -> pd.DataFrame:
    """The rows of `days`; `rows` are in the order of their times."""
    times = rows[spec.source.events.time_column]
    start, end = (int(times.searchsorted(pd.Timestamp(midnight(day)))) for day in (days.start, days.end))
    return rows.iloc[start:end]


def _scored(rows: pd.DataFrame, task: TaskKind, served: ServedTask) -> tuple[Scored, pd.DataFrame]:
    spec = task.spec
    times, entity = rows[spec.source.events.time_column], spec.evaluation.entity
    entities = None if entity is None else rows[entity]
    truth = EvaluationSet.of(task.truth(rows[LABEL].to_numpy()), entities, times.dt.floor("D"), times)
    return task.scored(truth, rows[SCORE].to_numpy(), served), rows


def _measured(scored: Scored, rows: pd.DataFrame, task: TaskKind) -> Measured:
    """The primary metric with its standard error."""
    spec, times = task.spec, rows[task.spec.source.events.time_column]
    drawn = clusterings([rows[name] for name in spec.entity_columns], times.dt.floor("D"), times)
    primary = spec.evaluation.primary
    return Measured(scored.value(primary), standard_error(scored, primary, drawn, spec.training.seed))


def _request(as_of: date, advice: Advice) -> Request:
    return Request(
        id=str(as_of),
        trigger=advice.triggers[0],
        also=advice.triggers[1:],
        seen=as_of,
        as_of=as_of,
        reason=advice.text,
        champion_version=1,
        test=advice.test,
    )


def _snapshot(as_of: date) -> Snapshot:
    return Snapshot(as_of=as_of, champion_version=1)
