"""Join labels and features point-in-time into a training and a holdout split."""

import logging
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from training import storage
from training.adapters.datasets import HOLDOUT, REFERENCE, TRAIN, Dataset, is_complete, requests, write_dataset
from training.adapters.lake import EVENTS, Lake
from training.adapters.tables import Events, FeatureDays, Labels
from training.contract.base import Days, TableVersions, midnight
from training.contract.errors import ConfigError, DataContractError
from training.contract.feature_definitions import FeatureDefinitions
from training.contract.messages import DatasetInputs, DatasetResult, Split
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.encoding import most_frequent
from training.domain.frames import EXCLUDED, LABEL, REPORTED_AT
from training.domain.identity import dataset_id
from training.domain.labels import decided, known_before, labelled
from training.domain.task_kind import TaskKind, task_of
from training.domain.windows import Windows, thinly_labelled, windows
from training.settings import StateSettings
from training.snapshots import snapshot_of

if TYPE_CHECKING:
    from training.adapters.features import Features

log = logging.getLogger("perennial")


def run(inputs: DatasetInputs, settings: StateSettings) -> DatasetResult:
    """Write `<work>/<model>/datasets/<dataset_id>/`: train, holdout and reference as Parquet, and the manifest.

    Besides, what the artifacts need of the features: their definitions, and the holdout's events and feature rows.
    Columns: the events' id, time and entities, the label, the features (float32, text); in the holdout also `_excluded`
    (bool): rows of entities whose positive label was known already. `reference` is a sample of train's features. The
    id is a hash of all that determines the content: a dataset that exists is returned as it is.
    Raises DataContractError when history, labels, rows, classes or feature rows do not suffice.
    """
    from training.adapters.features import Features, definitions_digest

    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    task = task_of(spec)
    lake = Lake(settings.lake, spec.source.name, spec.name)
    versions, as_of = _pinned(inputs, lake, spec, settings)
    window_days = inputs.window_days or spec.training.window_days
    seed = spec.training.seed if inputs.seed is None else inputs.seed
    definitions = definitions_digest(settings.feature_repo, spec.source)
    identity = dataset_id(spec, as_of, versions, lake.identities(versions), window_days, seed, definitions)
    uri = storage.join(settings.work, spec.name, "datasets", identity)
    if is_complete(uri):
        log.info("Dataset %s exists already in %s", identity, uri)
        return Dataset(uri, spec).manifest
    chosen = windows(as_of, window_days, spec.training.holdout_days, spec.label_spec.delay_days)
    log.info("As of %s: train %s, holdout %s, from versions %s", as_of, chosen.train, chosen.holdout, versions)
    _check_history(lake, spec, versions, chosen, as_of)
    rows = _labelled(lake, spec, versions, chosen, as_of)
    train, holdout = _splits(spec, rows, chosen)
    _check_counts(task, train, holdout, chosen)
    _check_features(lake, spec, versions, pd.concat([train, holdout]))
    features = Features(settings, spec)
    names = features.names()
    frames, batch = _with_features(features, spec, versions, train, holdout)
    result = DatasetResult(
        dataset_id=identity,
        uri=uri,
        as_of=as_of,
        feature_service=features.service,
        feature_names=names,
        train=_split(task, storage.join(uri, TRAIN), chosen.train, frames[TRAIN]),
        holdout=_split(task, storage.join(uri, HOLDOUT), chosen.holdout, frames[HOLDOUT]),
        seed=seed,
        table_versions=versions,
    )
    chosen_rows = np.random.default_rng(seed).permutation(len(train))[: spec.monitoring.maximum_rows]
    frames[REFERENCE] = frames[TRAIN].iloc[np.sort(chosen_rows)][names]
    made_of = requests(holdout[list(spec.request_columns)], batch)
    definitions_of = features.definitions
    learned = _categories(spec, definitions_of, frames[TRAIN])
    write_dataset(uri, frames, result, made_of, definitions_of.model_copy(update={"categories": learned}))
    return result


def _categories(spec: ModelSpec, definitions: FeatureDefinitions, train: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Feature that is a text → its categories: the allowed values of its event column, else those of training rows."""
    from training.adapters.features import event_texts

    of_events, found = event_texts(definitions, spec), {}
    for name in sorted(definitions.texts | of_events):
        allowed = spec.request_columns[name].values if name in of_events else None
        listed = map(str, allowed) if allowed else most_frequent(train[name], spec.training.maximum_categories)
        found[name] = tuple(listed)
    return found


def _pinned(inputs: DatasetInputs, lake: Lake, spec: ModelSpec, settings: StateSettings) -> tuple[TableVersions, date]:
    """The versions of the tables that are read, and the knowledge horizon."""
    wanted = [*spec.feed_names, *spec.source.entities]
    snapshot = snapshot_of(inputs, spec, settings, champion=False)
    if missing := [table for table in wanted if table not in snapshot.table_versions]:
        raise DataContractError(
            f"The snapshot of the lake at {lake.uri('')} has no tables {missing}",
            hint="Land events and labels and wait until their data runs have finished, then start another run.",
        )
    versions = {table: snapshot.table_versions[table] for table in wanted}
    given = inputs.as_of if inputs.snapshot is None else inputs.snapshot.as_of
    return versions, given or _horizon(lake, spec, versions)


def _horizon(lake: Lake, spec: ModelSpec, versions: TableVersions) -> date:
    """The day after the newest labels' reported day."""
    newest = Labels(lake, spec, versions[spec.label_spec.feed]).newest_report()
    if newest is None:
        raise DataContractError(f"{lake.uri(spec.label_spec.feed)} is empty", hint="Land labels first.")
    return newest.date() + timedelta(days=1)


def _check_history(lake: Lake, spec: ModelSpec, versions: TableVersions, chosen: Windows, as_of: date) -> None:
    """Events must reach back to the training window's first day."""
    events = Events(lake, spec, versions[EVENTS])
    start = chosen.train.start
    if not events.any_before(start + timedelta(days=1)):
        first = events.first()
        since = f"events begin on {first.date()}" if first else "there are no events"
        earliest = f"The earliest possible as_of is {first.date() + (as_of - start)}; or l" if first else "L"
        raise DataContractError(
            f"History is too short for as_of {as_of}: the training window begins on {start}, {since}",
            hint=f"{earliest}and older events, or shorten training.window_days.",
        )


def _check_features(lake: Lake, spec: ModelSpec, versions: TableVersions, rows: pd.DataFrame) -> None:
    """Every day of `rows` needs feature rows: without them all would train on defaults and nobody would notice."""
    days = set(rows[spec.source.events.time_column].dt.date.unique())
    events = Events(lake, spec, versions[EVENTS])
    for table in spec.source.entities:
        if missing := FeatureDays(lake, table, versions[table]).lacking(days, events):
            raise DataContractError(
                f"{lake.uri(table)} version {versions[table]} has no rows for {len(missing)} days, {missing[0]} first",
                hint="Run the features step for these days.",
            )


def _labelled(lake: Lake, spec: ModelSpec, versions: TableVersions, chosen: Windows, as_of: date) -> pd.DataFrame:
    """The events from the training window's start to the holdout's end whose label was known at `as_of`.

    Raises DataContractError when a day's labels are missing: what is left of it would be no fair picture.
    """
    event_time, identity = spec.source.events.time_column, spec.source.id_column
    window = Days(start=chosen.train.start, end=chosen.holdout.end)
    events = Events(lake, spec, versions[EVENTS]).within(window)
    known = Labels(lake, spec, versions[spec.label_spec.feed]).known_at(as_of, events[identity])
    found = labelled(events, known, spec, midnight(as_of))
    # An event that has no label by design lacks no report.
    reported = decided(events, known, spec, midnight(as_of))[identity]
    _check_labels(spec, events[event_time], events[identity].isin(reported).to_numpy(), chosen, as_of)
    log.info("%d events in %s, %d with a label known at %s", len(events), window, len(found), as_of)
    return found.sort_values([event_time, identity], ignore_index=True)


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
    return train, holdout.assign(**{EXCLUDED: excluded})


def _check_counts(task: TaskKind, train: pd.DataFrame, holdout: pd.DataFrame, chosen: Windows) -> None:
    """Raises DataContractError for labels that no model can be trained or measured on."""
    spec, counted = task.spec, holdout[~holdout[EXCLUDED]]
    rows, needed = len(train), spec.training.minimum_rows
    if rows < needed:
        lacks = f"{needed} are needed"
    else:
        lacks = task.lacks_to_fit(task.truth(train[LABEL].to_numpy()), spec.training.minimum_class_rows)
    if lacks:
        raise DataContractError(
            f"The training window {chosen.train} has {rows} labelled rows: {lacks}",
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


def _all_known(spec: ModelSpec, holdout: pd.DataFrame, rows: int, lacks: str, days: Days) -> DataContractError:
    """For a holdout that could be measured if evaluation left no rows out."""
    entity = spec.evaluation.entity
    return DataContractError(
        f"The holdout window {days} has {len(holdout)} labelled rows. Evaluation leaves out {len(holdout) - rows} of"
        f" them, because a positive label of their {entity} was already known; {rows} remain: {lacks}",
        hint="Write `exclude_known_entities: false` under evaluation when a positive label does not end an entity's"
        " events, or name an entity with more values as evaluation.entity.",
    )


def _with_features(
    features: "Features", spec: ModelSpec, versions: TableVersions, train: pd.DataFrame, holdout: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Both splits with their features, joined in one go; and the values of the views' columns for the holdout."""
    names = features.names()
    rows = pd.concat([train, holdout], ignore_index=True)
    entities = {*spec.source.entities.values(), *filter(None, [spec.evaluation.entity])}
    keys = [spec.source.id_column, spec.source.events.time_column, *sorted(entities)]
    columns = [*dict.fromkeys(keys), *sorted({*spec.task.reference_columns} - {*keys, *names})]
    # A column of the event that is a feature stands there once.
    added = [name for name in names if name not in spec.source.features.event_columns or name not in columns]
    if taken := sorted({*columns, spec.label} & set(added)) or sorted({spec.label} & set(columns)):
        raise ConfigError(
            f"A dataset cannot hold two columns of one name: {', '.join(taken)}",
            hint="Rename the feature, or the label's column: the id, the event's time and entities stand beside them.",
        )
    label = rows[[LABEL]].rename(columns={LABEL: spec.label})
    made, batch = features.historical_with_batch(rows, versions)
    joined = pd.concat([rows[columns], label, made[added]], axis=1)
    first, second = joined.iloc[: len(train)], joined.iloc[len(train) :]
    return {TRAIN: first, HOLDOUT: second.assign(**{EXCLUDED: holdout[EXCLUDED].to_numpy()})}, batch.iloc[len(train) :]


def _split(task: TaskKind, uri: str, days: Days, frame: pd.DataFrame) -> Split:
    counts = task.counts(task.truth(frame[task.spec.label].to_numpy()))
    return Split(days=days, uri=uri, rows=len(frame), counts=counts)
