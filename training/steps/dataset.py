"""Join labels and features point-in-time into a training and a holdout split."""

import hashlib
import json
import logging
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds

from training import storage
from training.adapters.datasets import HOLDOUT, REFERENCE, TRAIN, Dataset, is_complete, requests, write_dataset
from training.adapters.lake import EVENTS, LABELS, Lake
from training.contract.base import Days, TableVersions, midnight
from training.contract.errors import DataContractError, InputError
from training.contract.messages import DatasetInputs, DatasetResult, Split
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.windows import Windows, known_entities, thinly_labelled, windows
from training.settings import Settings

if TYPE_CHECKING:
    from training.adapters.features import Features

log = logging.getLogger("perennial")


def run(inputs: DatasetInputs, settings: Settings) -> DatasetResult:
    """Write `<work>/<model>/datasets/<dataset_id>/`: train, holdout and reference as Parquet, and the manifest.

    Besides, what the artifacts need of the features: their definitions, and the holdout's events and feature rows.
    Columns: the events' id, time and entities, the label, the features (float32); in the holdout also `excluded`
    (bool): rows of entities whose positive label was known already. `reference` is a sample of train's features. The
    id is a hash of all that determines the content: a dataset that exists is returned as it is.
    Raises DataContractError when history, labels, rows, positives or feature rows do not suffice.
    """
    from training.adapters.features import Features, definitions_digest

    spec = load_model_spec(inputs.model, settings.models_dir)
    lake = Lake(settings.lake, spec.name)
    versions = _versions(lake, spec, inputs.table_versions)
    as_of = inputs.as_of or _horizon(lake, spec, versions)
    window_days = inputs.window_days or spec.training.window_days
    seed = spec.training.seed if inputs.seed is None else inputs.seed
    parts = [as_of, versions, window_days, seed, spec.config_hash, definitions_digest(settings.feature_repo, spec)]
    dataset_id = hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:16]
    uri = storage.join(settings.work, spec.name, "datasets", dataset_id)
    if is_complete(uri):
        log.info("Dataset %s exists already in %s", dataset_id, uri)
        return Dataset(uri, spec).manifest
    chosen = windows(as_of, window_days, spec.training.holdout_days, spec.label.delay_days)
    log.info("As of %s: train %s, holdout %s, from versions %s", as_of, chosen.train, chosen.holdout, versions)
    _check_history(lake, spec, versions, chosen, as_of)
    labelled = _labelled(lake, spec, versions, chosen, as_of)
    train, holdout = _splits(spec, labelled, chosen)
    _check_counts(spec, train, holdout, chosen)
    _check_features(lake, spec, versions, pd.concat([train, holdout]))
    features = Features(settings, spec)
    names = features.names()
    frames, batch = _with_features(features, spec, versions, train, holdout)
    result = DatasetResult(
        dataset_id=dataset_id,
        uri=uri,
        as_of=as_of,
        feature_service=spec.features.service,
        feature_names=names,
        train=_split(spec, storage.join(uri, TRAIN), chosen.train, frames[TRAIN]),
        holdout=_split(spec, storage.join(uri, HOLDOUT), chosen.holdout, frames[HOLDOUT]),
        seed=seed,
        table_versions=versions,
    )
    chosen_rows = np.random.default_rng(seed).permutation(len(train))[: spec.drift.maximum_rows]
    frames[REFERENCE] = frames[TRAIN].iloc[np.sort(chosen_rows)][names]
    made_of = requests(holdout[list(spec.request_columns)], batch)
    write_dataset(uri, frames, result, made_of, features.definitions)
    return result


def _versions(lake: Lake, spec: ModelSpec, given: TableVersions | None) -> TableVersions:
    """The `given` versions or, without, the newest: pinned from here on."""
    wanted = [EVENTS, LABELS, *spec.features.tables]
    if given is not None:
        if missing := [table for table in wanted if table not in given]:
            raise InputError(f"table_versions names no version of {missing}", hint=f"Name one of each of {wanted}.")
        return {table: given[table] for table in wanted}
    versions = lake.versions(*wanted)
    if missing := [table for table in wanted if table not in versions]:
        raise DataContractError(
            f"The lake at {lake.uri('')} has no tables {missing}", hint="Land events and labels, and let them through."
        )
    return versions


def _horizon(lake: Lake, spec: ModelSpec, versions: TableVersions) -> date:
    """The day after the newest labels' reported day."""
    column = spec.feeds["labels"].time_column
    newest = pc.max(lake.scan(LABELS, versions[LABELS]).to_table(columns=[column])[column]).as_py()
    if newest is None:
        raise DataContractError(f"{lake.uri(LABELS)} is empty", hint="Land labels first.")
    return newest.date() + timedelta(days=1)


def _check_history(lake: Lake, spec: ModelSpec, versions: TableVersions, chosen: Windows, as_of: date) -> None:
    """Events must reach back to the training window's first day."""
    column = spec.feeds["events"].time_column
    events = lake.scan(EVENTS, versions[EVENTS])
    start = chosen.train.start
    if not _any_before(events, column, start + timedelta(days=1)):
        first = pc.min(events.to_table(columns=[column])[column]).as_py()
        since = f"events begin on {first.date()}" if first else "there are no events"
        earliest = f"The earliest possible as_of is {first.date() + (as_of - start)}; or l" if first else "L"
        raise DataContractError(
            f"History is too short for as_of {as_of}: the training window begins on {start}, {since}",
            hint=f"{earliest}and older events, or shorten training.window_days.",
        )


def _check_features(lake: Lake, spec: ModelSpec, versions: TableVersions, rows: pd.DataFrame) -> None:
    """Every day of `rows` needs feature rows: without them all would train on defaults and nobody would notice."""
    column = spec.feeds["events"].time_column
    days = set(rows[column].dt.date.unique())
    first, last = min(days), max(days)
    if not _any_before(lake.scan(EVENTS, versions[EVENTS]), column, first):
        # On the very first day of all no entity has a past, hence no feature row.
        days.remove(first)
    within = (ds.field("day") >= first) & (ds.field("day") <= last)
    for table in spec.features.tables:
        found = pc.unique(lake.scan(table, versions[table]).to_table(["day"], filter=within)["day"]).to_pylist()
        if missing := sorted(days - set(found)):
            raise DataContractError(
                f"{lake.uri(table)} version {versions[table]} has no rows for {len(missing)} days, {missing[0]} first",
                hint="Run the features step for these days.",
            )


def _any_before(events: ds.Dataset, column: str, day: date) -> bool:
    return events.filter(ds.field(column) < midnight(day)).head(1, columns=[column]).num_rows > 0


def _labelled(lake: Lake, spec: ModelSpec, versions: TableVersions, chosen: Windows, as_of: date) -> pd.DataFrame:
    """The events from the training window's start to the holdout's end whose label was known at `as_of`.

    Raises DataContractError when a day's labels are missing: what is left of it would be no fair picture.
    """
    event_time, reported = spec.feeds["events"].time_column, spec.feeds["labels"].time_column
    start, end = midnight(chosen.train.start), midnight(chosen.holdout.end)
    within = (ds.field(event_time) >= start) & (ds.field(event_time) < end)
    events = lake.scan(EVENTS, versions[EVENTS]).to_table(list(spec.request_columns), filter=within).to_pandas()
    known = (ds.field(reported) >= start) & (ds.field(reported) < midnight(as_of))
    columns = [spec.label.id_column, spec.label.column, reported]
    labels = lake.scan(LABELS, versions[LABELS]).to_table(columns, filter=known).to_pandas()
    # A label that was reported again is a correction: the newest known counts.
    labels = labels.sort_values(reported).drop_duplicates(spec.label.id_column, keep="last")
    has_label = events[spec.label.id_column].isin(labels[spec.label.id_column]).to_numpy()
    _check_labels(spec, events[event_time], has_label, chosen, as_of)
    found = events.merge(labels, on=spec.label.id_column, how="inner", validate="one_to_one")
    log.info("%d events from %s to %s, %d with a label known at %s", len(events), start, end, len(found), as_of)
    return found.sort_values([event_time, spec.label.id_column], ignore_index=True)


def _check_labels(spec: ModelSpec, times: pd.Series, has_label: np.ndarray, chosen: Windows, as_of: date) -> None:
    minimum = spec.training.minimum_labelled_share
    thin = thinly_labelled(times, has_label, (chosen.train, chosen.holdout), minimum)
    if thin:
        named = ", ".join(f"{day} ({share:.1%})" for day, share in thin.items())
        raise DataContractError(
            f"Of the events of {len(thin)} days, fewer than {minimum:.0%} had a label reported before {as_of}: {named}",
            hint="Land the label partitions that are missing, or lower training.minimum_labelled_share in the spec.",
        )


def _splits(spec: ModelSpec, labelled: pd.DataFrame, chosen: Windows) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and holdout; the holdout with `excluded`."""
    times = labelled[spec.feeds["events"].time_column]

    def within(days: Days) -> pd.Series:
        return (times >= midnight(days.start)) & (times < midnight(days.end))

    train, holdout = labelled[within(chosen.train)], labelled[within(chosen.holdout)]
    excluded = np.zeros(len(holdout), bool)
    if spec.evaluation.exclude_known_entities:
        frauds = labelled[labelled[spec.label.column] == 1]
        entity, reported = spec.evaluation.entity, spec.feeds["labels"].time_column
        excluded = known_entities(holdout[entity], times[holdout.index], frauds[entity], frauds[reported])
    return train, holdout.assign(excluded=excluded)


def _check_counts(spec: ModelSpec, train: pd.DataFrame, holdout: pd.DataFrame, chosen: Windows) -> None:
    counted = {"training": (train, chosen.train), "holdout": (holdout[~holdout["excluded"]], chosen.holdout)}
    rows_needed = {"training": spec.training.minimum_rows, "holdout": 1}
    positives_needed = {"training": spec.training.minimum_positives, "holdout": 1}
    for name, (frame, days) in counted.items():
        rows, positives = len(frame), int(frame[spec.label.column].sum())
        if rows < rows_needed[name] or positives < positives_needed[name]:
            raise DataContractError(
                f"The {name} window {days} has {rows} labelled rows, {positives} positive;"
                f" needed are {rows_needed[name]} and {positives_needed[name]}",
                hint="Choose a later as_of or a longer window_days, or lower training.minimum_rows and"
                " minimum_positives in the spec.",
            )


def _with_features(
    features: "Features", spec: ModelSpec, versions: TableVersions, train: pd.DataFrame, holdout: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Both splits with their features, joined in one go; and the values of the views' columns for the holdout."""
    names = features.names()
    joined, batch = features.historical_with_batch(pd.concat([train, holdout]), versions)
    entities = sorted({*spec.features.tables.values(), spec.evaluation.entity})
    columns = [spec.label.id_column, spec.feeds["events"].time_column, *entities, spec.label.column]
    first, second = joined.iloc[: len(train)], joined.iloc[len(train) :]
    frames = {
        TRAIN: first[[*columns, *names]],
        HOLDOUT: second[[*columns, *names]].assign(excluded=holdout["excluded"].to_numpy()),
    }
    return frames, batch.iloc[len(train) :]


def _split(spec: ModelSpec, uri: str, days: Days, frame: pd.DataFrame) -> Split:
    return Split(days=days, uri=uri, rows=len(frame), positives=int(frame[spec.label.column].sum()))
