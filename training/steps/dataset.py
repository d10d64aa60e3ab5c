"""Join labels and features point-in-time into a training and a holdout split."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pandas as pd

from training import storage
from training.adapters.datasets import HOLDOUT, REFERENCE, TRAIN, Dataset, is_complete, requests, write_dataset
from training.adapters.lake import EVENTS, Lake
from training.adapters.tables import Events, Labels
from training.contract.base import Days, TableVersions
from training.contract.errors import ConfigError, DataContractError
from training.contract.feature_definitions import FeatureDefinitions
from training.contract.messages import DatasetInputs, DatasetResult, Split, TrainingWindow
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.encoding import most_frequent
from training.domain.entity_age import age_column
from training.domain.frames import EXCLUDED, LABEL
from training.domain.identity import dataset_id
from training.domain.task_kind import TaskKind, task_of
from training.domain.windows import (
    Windows,
    event_days,
    named_windows,
    reference_rows,
    rows_of_window,
    windows,
    windows_after_change,
)
from training.entity_ages import entity_ages
from training.labelled_rows import labelled_rows, lacks_to_train
from training.settings import StateSettings
from training.snapshots import snapshot_of

if TYPE_CHECKING:
    from training.adapters.features import Features

log = logging.getLogger("perennial")


def run(inputs: DatasetInputs, settings: StateSettings) -> DatasetResult:
    """Write `<work>/<model>/datasets/<dataset_id>/`: train, holdout and reference as Parquet, and the manifest.

    Also what the artifacts need of the features: their definitions, and the holdout's events and feature rows. Columns:
    the events' id, time and entities, the label, the features (float32, text), and `_age_<entity>`: for how many days
    it was known (training/domain/entity_age.py); in the holdout also `_excluded` (bool): rows of entities whose
    positive label was known already. `reference` is a sample of train's features, with entities and times. The id is a
    hash of all that determines the content: a dataset that exists is returned as it is.

    After a `change` gap and holdout are those of `training.after_change`, unless its rows do not suffice.
    Raises DataContractError when history, labels, rows, classes or feature rows do not suffice.
    """
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    lake = Lake(settings.lake, spec.source.name, spec.name)
    versions, as_of = _pinned(inputs, lake, spec, settings)
    window_days = inputs.window_days or spec.training.window_days
    seed = spec.training.seed if inputs.seed is None else inputs.seed
    pinned = _Pinned(spec, lake, versions, as_of, seed)
    delay = spec.label_spec.delay_days
    usual = windows(as_of, window_days, spec.training.holdout_days, delay)
    after = windows_after_change(inputs.change, usual, as_of, spec.training, delay)
    if after is not None:
        log.info("Gap and holdout are shorter, because of a change on %s", inputs.change)
        try:
            return _made(pinned, after, inputs.change, settings)
        except DataContractError as error:
            log.warning("Gap and holdout have their usual length after all: %s", error)
    return _made(pinned, usual, None, settings)


@dataclass(frozen=True)
class _Pinned:
    """What a dataset is made of: these versions of the tables, as known at `as_of`."""

    spec: ModelSpec
    lake: Lake
    versions: TableVersions
    as_of: date
    seed: int


def _made(pinned: _Pinned, chosen: Windows, change: date | None, settings: StateSettings) -> DatasetResult:
    """The dataset of these windows; the one that exists, if there is one."""
    from training.adapters.features import Features, definitions_digest

    spec, lake, versions, as_of, seed = pinned.spec, pinned.lake, pinned.versions, pinned.as_of, pinned.seed
    task, window_days = task_of(spec), len(chosen.train)
    definitions = definitions_digest(settings.feature_repo, spec.source)
    identity = dataset_id(spec, as_of, versions, lake.identities(versions), window_days, seed, definitions, change)
    uri = storage.join(settings.work, spec.name, "datasets", identity)
    if is_complete(uri):
        log.info("Dataset %s exists already in %s", identity, uri)
        return Dataset(uri, spec).manifest
    log.info("As of %s: train %s, holdout %s, from versions %s", as_of, chosen.train, chosen.holdout, versions)
    named = _named(lake, spec, versions, chosen, change)
    whole = chosen.from_day(min(days.start for days in named.values()))
    train, holdout = labelled_rows(lake, spec, versions, whole, as_of)
    features = Features(settings, spec, lake)
    names = features.names()
    found = list(_windows(task, named, train, seed))
    frames, batch = _with_features(features, spec, versions, train, holdout)
    for split, rows, days in ((TRAIN, train, whole.train), (HOLDOUT, holdout, chosen.holdout)):
        known = entity_ages(lake, spec, versions[EVENTS], rows, days)
        frames[split] = frames[split].assign(**{age_column(name): each for name, each in known.items()})
    result = DatasetResult(
        dataset_id=identity,
        uri=uri,
        as_of=as_of,
        feature_service=features.service,
        feature_names=names,
        train=_split(task, storage.join(uri, TRAIN), whole.train, frames[TRAIN]),
        holdout=_split(task, storage.join(uri, HOLDOUT), chosen.holdout, frames[HOLDOUT]),
        windows=found,
        window_days=window_days,
        change=change,
        seed=seed,
        table_versions=versions,
    )
    of_first = rows_of_window(found[0].name, found[0].days, event_days(train[spec.source.events.time_column]), seed)
    sampled = reference_rows(of_first, spec.monitoring.maximum_rows, seed)
    kept = dict.fromkeys([*names, *spec.drift_columns, *map(age_column, known)])
    frames[REFERENCE] = frames[TRAIN].iloc[sampled][list(kept)]
    made_of = requests(holdout[list(spec.request_columns)], batch)
    definitions_of = features.definitions
    learned = _categories(spec, definitions_of, frames[TRAIN])
    write_dataset(uri, frames, result, made_of, definitions_of.model_copy(update={"categories": learned}))
    return result


def _named(
    lake: Lake, spec: ModelSpec, versions: TableVersions, chosen: Windows, change: date | None
) -> dict[str, Days]:
    """Every window to train on that history is long enough for."""
    names = spec.training.windows
    first = Events(lake, spec.source, versions[EVENTS]).first() if names else None
    return dict(named_windows(chosen.train, names, first.date() if first else None, change))


def _windows(task: TaskKind, named: Mapping[str, Days], train: pd.DataFrame, seed: int) -> Iterator[TrainingWindow]:
    """Those of the `named` windows that have the least rows of the spec. Raises DataContractError when none has."""
    row_days = event_days(train[task.spec.source.events.time_column])
    labels, lacking = train[LABEL].to_numpy(), {}
    for name, days in named.items():
        of_window = labels[rows_of_window(name, days, row_days, seed)]
        shown = f"{name or 'window_days'} ({days})"
        if lacks := lacks_to_train(task, of_window):
            lacking[shown] = f"{len(of_window)} rows: {lacks}"
            log.warning("Left out: the window %s has %s", shown, lacking[shown])
            continue
        log.info("Window %s: %d rows", shown, len(of_window))
        yield TrainingWindow(name=name, days=days, rows=len(of_window), counts=task.counts(task.truth(of_window)))
    if len(lacking) == len(named):
        why = "; ".join(f"{name} has {lacks}" for name, lacks in lacking.items())
        raise DataContractError(f"No window has enough labelled rows: {why}", "Choose a later as_of or longer windows.")


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


def _with_features(
    features: "Features", spec: ModelSpec, versions: TableVersions, train: pd.DataFrame, holdout: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Both splits with their features, joined in one go; and the values of the views' columns for the holdout."""
    names = features.names()
    rows = pd.concat([train, holdout], ignore_index=True)
    entities = {*spec.source.entities.values(), *filter(None, [spec.evaluation.entity])}
    keys = [spec.source.id_column, spec.source.events.time_column, *sorted(entities)]
    more = {*spec.task.reference_columns, *spec.monitoring.embeddings} - {*keys, *names}
    columns = [*dict.fromkeys(keys), *sorted(more)]
    # A column of the event that is a feature stands there once.
    added = [name for name in names if name not in spec.source.features.event_columns or name not in columns]
    if taken := sorted({*columns, spec.label} & set(added)) or sorted({spec.label} & set(columns)):
        raise ConfigError(
            f"A dataset cannot hold two columns of one name: {', '.join(taken)}",
            hint="Rename the feature, or the label's column: the id, the event's time and entities stand beside them.",
        )
    made, batch = features.historical_with_batch(rows, versions)
    found = {name: rows[name] for name in columns} | {spec.label: rows[LABEL]} | {name: made[name] for name in added}
    joined = pd.DataFrame(found, copy=False)
    first, second = joined.iloc[: len(train)], joined.iloc[len(train) :]
    return {TRAIN: first, HOLDOUT: second.assign(**{EXCLUDED: holdout[EXCLUDED].to_numpy()})}, batch.iloc[len(train) :]


def _split(task: TaskKind, uri: str, days: Days, frame: pd.DataFrame) -> Split:
    counts = task.counts(task.truth(frame[task.spec.label].to_numpy()))
    return Split(days=days, uri=uri, rows=len(frame), counts=counts)
