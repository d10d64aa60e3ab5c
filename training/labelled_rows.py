"""The labelled events of a training window and its holdout, or why no model can be trained on them."""

import logging
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from training.adapters.lake import EVENTS, Lake
from training.adapters.tables import Events, FeatureDays, Labels
from training.contract.base import Days, TableVersions, midnight
from training.contract.errors import DataContractError
from training.contract.model_spec import ModelSpec
from training.domain.frames import EXCLUDED, LABEL, REPORTED_AT
from training.domain.labels import decided, known_before, with_label
from training.domain.task_kind import TaskKind, task_of
from training.domain.windows import Windows, event_days, thinly_labelled

log = logging.getLogger("perennial")


def labelled_rows(
    lake: Lake, spec: ModelSpec, versions: TableVersions, chosen: Windows, as_of: date
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Events and their labels as known at `as_of`: those of the training window, and those of the holdout.

    The holdout has the column EXCLUDED as well. Raises DataContractError when history, labels, rows, classes or feature
    rows do not suffice.
    """
    _check_history(lake, spec, versions, chosen, as_of)
    rows, time = _labelled(lake, spec, versions, chosen, as_of), spec.source.events.time_column
    train, holdout = _splits(spec, rows, chosen)
    _check_counts(task_of(spec), train, holdout, chosen)
    _check_features(lake, spec, versions, _days(train[time]) | _days(holdout[time]))
    return train, holdout


def _days(times: pd.Series) -> set[date]:
    return set(np.unique(event_days(times)).tolist())


def _check_history(lake: Lake, spec: ModelSpec, versions: TableVersions, chosen: Windows, as_of: date) -> None:
    """Events must reach back to the training window's first day."""
    events = Events(lake, spec.source, versions[EVENTS])
    start = chosen.train.start
    if not events.any_before(start + timedelta(days=1)):
        first = events.first()
        since = f"events begin on {first.date()}" if first else "there are no events"
        earliest = f"The earliest possible as_of is {first.date() + (as_of - start)}; or l" if first else "L"
        raise DataContractError(
            f"History is too short for as_of {as_of}: the training window begins on {start}, {since}",
            hint=f"{earliest}and older events, or shorten training.window_days.",
        )


def _check_features(lake: Lake, spec: ModelSpec, versions: TableVersions, days: set[date]) -> None:
    """Each of the `days` needs feature rows: without them all would train on defaults and nobody would notice."""
    events = Events(lake, spec.source, versions[EVENTS])
    for table in spec.source.entities:
        if missing := FeatureDays(lake, table, versions[table]).lacking(days, events):
            raise DataContractError(
                f"{lake.uri(table)} version {versions[table]} has no rows for {len(missing)} days, {missing[0]} first",
                hint="Run the features step for these days.",
            )


def _labelled(lake: Lake, spec: ModelSpec, versions: TableVersions, chosen: Windows, as_of: date) -> pd.DataFrame:
    """The events from the training window's start to the holdout's end whose label was known at `as_of`.

    Raises DataContractError when a day's labels are missing: the rest would not be representative.
    """
    event_time, identity = spec.source.events.time_column, spec.source.id_column
    window = Days(start=chosen.train.start, end=chosen.holdout.end)
    events = Events(lake, spec.source, versions[EVENTS]).within(window)
    known = Labels(lake, spec, versions[spec.label_spec.feed]).known_at(as_of, events[identity])
    reported = decided(events, known, spec, midnight(as_of))
    # An event that has no label by design lacks no report.
    _check_labels(spec, events[event_time], events[identity].isin(reported[identity]).to_numpy(), chosen, as_of)
    found = with_label(reported, known)
    log.info("%d events in %s, %d with a label known at %s", len(events), window, len(found), as_of)
    keys = pa.table([pa.array(found[event_time]), pa.array(found[identity])], [event_time, identity])
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    return found.take(order.to_numpy()).reset_index(drop=True)


def _check_labels(spec: ModelSpec, times: pd.Series, has_label: np.ndarray, chosen: Windows, as_of: date) -> None:
    minimum = spec.training.minimum_labelled_share
    thin = thinly_labelled(times, has_label, (chosen.train, chosen.holdout), minimum)
    if thin:
        named = ", ".join(f"{day} ({share:.1%})" for day, share in thin.items())
        raise DataContractError(
            f"Of the events of {len(thin)} days, fewer than {minimum:.0%} had a label reported before {as_of}: {named}",
            hint="Land the label partitions that are missing, or lower training.minimum_labelled_share in the spec.",
        )


def _splits(spec: ModelSpec, rows: pd.DataFrame, chosen: Windows) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and holdout; the holdout with EXCLUDED."""
    times = rows[spec.source.events.time_column]

    def within(days: Days) -> pd.Series:
        return (times >= midnight(days.start)) & (times < midnight(days.end))

    train, holdout = rows[within(chosen.train)], rows[within(chosen.holdout)]
    excluded = np.zeros(len(holdout), bool)
    if spec.evaluation.exclude_known_entities:
        excluded = known_before(holdout, rows[[spec.source.id_column, LABEL, REPORTED_AT]], rows, spec)
        if chosen.gap_days < spec.label_spec.delay_days:
            # Labels of the last training days came after the holdout had begun. A model gets no credit for finding the
            # entities again that it has learned from.
            entity = spec.evaluation.entity
            learned = train.loc[train[LABEL] == 1, entity].dropna()
            excluded |= holdout[entity].isin(learned).to_numpy()
    return train, holdout.assign(**{EXCLUDED: excluded})


def _check_counts(task: TaskKind, train: pd.DataFrame, holdout: pd.DataFrame, chosen: Windows) -> None:
    """Raises DataContractError for labels that no model can be trained or measured on."""
    spec, counted = task.spec, holdout[~holdout[EXCLUDED]]
    if lacks := lacks_to_train(task, train[LABEL].to_numpy()):
        raise DataContractError(
            f"The training window {chosen.train} has {len(train)} labelled rows: {lacks}",
            hint="Choose a later as_of or a longer window_days, or lower training.minimum_rows and"
            " minimum_class_rows in the spec.",
        )
    if lacks := task.lacks_to_measure(task.truth(counted[LABEL].to_numpy()), 1):
        if len(counted) < len(holdout) and not task.lacks_to_measure(task.truth(holdout[LABEL].to_numpy()), 1):
            raise _all_known(spec, holdout, len(counted), lacks, chosen.holdout)
        raise DataContractError(
            f"The holdout window {chosen.holdout} has {len(counted)} labelled rows: {lacks}",
            hint="Choose a later as_of or a longer training.holdout_days.",
        )


def lacks_to_train(task: TaskKind, labels: np.ndarray) -> str:
    """What these labels lack for the least rows of the spec. Empty: nothing."""
    training = task.spec.training
    if len(labels) < training.minimum_rows:
        return f"{training.minimum_rows} are needed"
    return task.lacks_to_fit(task.truth(labels), training.minimum_class_rows)


def _all_known(spec: ModelSpec, holdout: pd.DataFrame, rows: int, lacks: str, days: Days) -> DataContractError:
    """For a holdout that could be measured if evaluation left no rows out."""
    entity = spec.evaluation.entity
    return DataContractError(
        f"The holdout window {days} has {len(holdout)} labelled rows. Evaluation leaves out {len(holdout) - rows} of"
        f" them, because a positive label of their {entity} was already known; {rows} remain: {lacks}",
        hint="Write `exclude_known_entities: false` under evaluation when a positive label does not end an entity's"
        " events, or name an entity with more values as evaluation.entity.",
    )
