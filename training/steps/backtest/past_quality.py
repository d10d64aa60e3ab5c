"""How good models were on past events, by the labels as they are known now."""

from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from training.adapters.lake import Lake
from training.adapters.tables import Labels
from training.contract.base import Days, Frozen, midnight
from training.contract.model_spec import ModelSpec
from training.domain.evaluation_set import EvaluationSet
from training.domain.frames import LABEL
from training.domain.labels import known_before, labelled
from training.domain.metrics import paired_differences
from training.domain.task_kind import Scored, task_of
from training.domain.verdict import interval
from training.steps.backtest.own_state import Place
from training.steps.backtest.past_events import PastEvents
from training.steps.backtest.past_monitors import ROW
from training.steps.backtest.past_trainings import Training, model_of

#: Of the bootstrap that compares a champion with the one before.
SAMPLES = 200


class Value(Frozen):
    """The primary metric; None where it is not defined."""

    value: float | None


class Better(Frozen):
    """Whether a model was better than another one beyond chance, and the interval of the difference."""

    better: bool
    low: float | None = None
    high: float | None = None


def measure(place: Place, week: Days, served: list[tuple[date, Training]]) -> Value:
    """The primary metric on the events of `week`, when each of `served` answers from its day on, the first from the
    beginning.

    The scores of a week are measured together, as they were acted upon together, with the task of its last model.
    """
    past = PastEvents(place)
    scored = _scored(past, week, served)
    value = np.nan if scored is None else scored.value(past.spec.evaluation.primary)
    return Value(value=float(value) if np.isfinite(value) else None)


def compare(place: Place, days: Days, new: Training, old: Training) -> Better:
    """Compare two models on the events of `days`, by the paired interval of the verdict."""
    past = PastEvents(place)
    ours, theirs = (_scored(past, days, [(days.start, each)]) for each in (new, old))
    if ours is None or theirs is None:
        return Better(better=False)
    evaluation, task = past.spec.evaluation, task_of(past.spec)
    found = paired_differences(ours, theirs, evaluation.primary, SAMPLES, past.spec.training.seed)
    low, high = interval(found, evaluation.confidence)
    better = low > 0 if task.rules[evaluation.primary].sign > 0 else high < 0
    return Better(better=better, low=low, high=high) if np.isfinite([low, high]).all() else Better(better=False)


def _scored(past: PastEvents, days: Days, served: list[tuple[date, Training]]) -> Scored | None:
    """None when no metric is defined on the events of `days`."""
    known = _known(_Span(past.place.folder, days, past))
    if known is None:
        return None
    models, parts = [model_of(past.place, each) for _, each in served], []
    ends = [*(since for since, _ in served[1:]), days.end]
    start = days.start
    for model, end in zip(models, ends, strict=True):
        if end > start:
            parts.append(past.scores(model, Days(start=start, end=end)))
            start = end
    scores = np.concatenate([part for part in parts if len(part)])[known.places]
    return task_of(past.spec).scored(known.truth, scores, models[-1].task)


@dataclass(frozen=True)
class _Span:
    """Days of a place."""

    folder: Path
    days: Days
    past: PastEvents = field(compare=False)


class _Known(NamedTuple):
    """What came true of the events that evaluation counts, and their places among all events of the days, [n]."""

    places: np.ndarray
    truth: EvaluationSet


@lru_cache(maxsize=64)
def _known(span: _Span) -> _Known | None:
    """Kept: each model is measured on the same weeks. None when no metric is defined on them."""
    spec, task = span.past.spec, task_of(span.past.spec)
    rows = counted(span.past, span.days)
    labels = task.truth(rows[LABEL].to_numpy())
    if task.lacks_to_measure(labels, 1):
        return None
    times, entity = rows[spec.source.events.time_column], spec.evaluation.entity
    entities = None if entity is None else rows[entity]
    return _Known(rows[ROW].to_numpy(), EvaluationSet.of(labels, entities, times.dt.floor("D"), times))


def counted(past: PastEvents, days: Days) -> pd.DataFrame:
    """The events of `days` that evaluation counts, with their labels as known now, and their place among
    `past.rows(days)` as ROW."""
    spec, place = past.spec, past.place
    rows = past.rows(days)[past.keys]
    rows = rows.assign(**{ROW: np.arange(len(rows))})
    earlier = past.rows(Days(start=days.start - timedelta(days=known_days(spec)), end=days.end))[past.keys]
    lake = Lake(place.settings.lake, spec.source.name, spec.name)
    labels = Labels(lake, spec, place.versions[spec.label_spec.feed])
    known = labels.known_at(place.horizon, earlier[spec.source.id_column])
    found = labelled(rows, known, spec, midnight(place.horizon))
    if spec.evaluation.exclude_known_entities:
        found = found[~known_before(found, known, earlier, spec)]
    return found


def known_days(spec: ModelSpec) -> int:
    """For how many days before a window positive labels make their entities known: as long as before a holdout, from
    the beginning of the training window on. 0 when the spec does not leave out known entities."""
    if not spec.evaluation.exclude_known_entities:
        return 0
    return spec.training.window_days + spec.label_spec.delay_days
