"""Where rows of a person stay after `forget`, or may come from again, each as a sentence that says what to do."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training import storage
from training.adapters.lake import EVENTS, Lake
from training.adapters.registry.retention import deleted_runs
from training.adapters.replicas import Replicas
from training.contract.errors import ConfigError, StepError
from training.contract.model_spec import load_model_spec, models_of
from training.contract.source_spec import SourceSpec, load_source_spec
from training.domain.arrow_types import feed_schema
from training.domain.forgetting import Entity, look_alikes, matcher, quarantined
from training.domain.sql_names import quoted
from training.settings import StateSettings
from training.workspace import DATA_DOCS, MADE_AGAIN, REPLAYS, UNDER_WAY

#: Rows of a landed file that are looked at together.
_ROWS = 100_000
_AGAIN = "run this again"


def left_behind(
    spec: SourceSpec, entity: Entity, ids: Collection[Any], models: Collection[str], settings: StateSettings
) -> list[str]:
    """`ids`: of the person's events. `models`: those that learned from the source.

    Landing and backups belong to others, and reports are evidence: nothing is changed there. Raises TransientError when
    MLflow or a store does not answer.
    """
    return [
        *_landed_files(spec, entity, ids, settings),
        *_unfinished_replays(spec, entity, ids, settings),
        *_unfinished_ingest(spec, settings),
        *_in_other_sources(spec, entity, settings),
        *_look_alikes(spec, entity, settings),
        *_waiting_predictions(spec, settings),
        *_of_models(models, settings),
        *_copies(settings),
        *_EVERYWHERE,
    ]


def _landed_files(spec: SourceSpec, entity: Entity, ids: Collection[Any], settings: StateSettings) -> Iterator[str]:
    for uri in _files(storage.join(settings.landing, spec.name)):
        count = _rows_of_person(uri, spec, entity, ids)
        if count is None:
            yield f"{uri} cannot be read as Parquet: look into it yourself"
        elif count:
            yield f"{uri} holds {count} rows of the person: delete or replace it"


def _unfinished_replays(
    spec: SourceSpec, entity: Entity, ids: Collection[Any], settings: StateSettings
) -> Iterator[str]:
    """Files of a replay that was killed. Its rows are in no table until it is finished, those of others neither."""
    for uri in _files(storage.join(settings.work, spec.name, REPLAYS)):
        if uri.endswith(".parquet") and _rows_of_person(uri, spec, entity, ids) != 0:
            then = f"finish the replay with the DAG {spec.name}_replay_quarantine, then {_AGAIN}"
            yield f"{uri} holds rows of the person: {then}"


def _unfinished_ingest(spec: SourceSpec, settings: StateSettings) -> Iterator[str]:
    folder = str(settings.scratch / spec.name / UNDER_WAY)
    if files := len(storage.tree(folder)):
        then = f"The nightly clean-up deletes what is a day old. If one runs, {_AGAIN} after it"
        yield f"{folder} has {files} files of an ingest that runs, or was killed. {then}"


def _files(root: str) -> list[str]:
    return [uri for path in storage.tree(root) if storage.size(uri := storage.join(root, path))]


def _rows_of_person(uri: str, spec: SourceSpec, entity: Entity, ids: Collection[Any]) -> int | None:
    """The rows of a Parquet file that are the person's; None for a file that cannot be read as such."""
    count = 0
    with TemporaryDirectory() as folder:
        path = storage.as_local(uri, Path(folder, "copy"))
        try:
            file = pq.ParquetFile(path)
            wanted = {entity.column: [entity.value], spec.id_column: list(ids)}
            names = [name for name in (*wanted, "row") if name in file.schema_arrow.names]
            for batch in file.iter_batches(_ROWS, columns=names):
                found = [_among(batch[name], wanted[name]) for name in names if name in wanted]
                count += sum(map(any, zip(*found, strict=True))) if found else 0
                if "row" in names:  # As in quarantine.
                    texts = [str(text) for text in batch["row"].to_pylist() if text]
                    count += len(quarantined(texts, entity, spec.id_column, ids))
        except (OSError, ValueError, pa.ArrowException):
            return None
    return count


def _among(column: pa.Array, values: list[Any]) -> list[bool]:
    """Of each row whether it has one of `values`, in whatever type it was delivered."""
    numbers = pa.types.is_integer(column.type) and all(isinstance(each, int) for each in values)
    texts = pa.types.is_string(column.type) and all(isinstance(each, str) for each in values)
    if texts or (numbers and column.type != pa.uint64()):
        return pc.is_in(column, pa.array(values, pa.int64() if numbers else pa.string()).cast(column.type)).to_pylist()
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    matches: Callable[[Any], bool] = matcher(values)
    hits = [matches(each) for each in encoded.dictionary.to_pylist()]
    return [place is not None and hits[place] for place in encoded.indices.to_pylist()]


def _in_other_sources(spec: SourceSpec, entity: Entity, settings: StateSettings) -> Iterator[str]:
    for name in storage.folders(settings.lake):
        if name == spec.name:
            continue
        lake = Lake(settings.lake, name)
        held = lake.schema(EVENTS)
        if held is None or entity.column not in held.names:
            continue
        if count := lake.count_where(EVENTS, entity.equals(quoted(entity.column))):
            yield f"{_forgettable(name, entity, settings)}: {count} events of {name} have the value in {entity.column}"


def _forgettable(source: str, entity: Entity, settings: StateSettings) -> str:
    try:
        known = entity.column in load_source_spec(source, settings.feature_repo).entities.values()
    except ConfigError:
        known = False
    if known:
        return f"If it is the same person, run this for the source {source} too"
    return f"If it is the same person, deliver the partitions of {source} again without the rows"


def _look_alikes(spec: SourceSpec, entity: Entity, settings: StateSettings) -> Iterator[str]:
    lake = Lake(settings.lake, spec.name)
    if isinstance(entity.value, int) or lake.version(EVENTS) is None:
        return
    events = lake.scan(EVENTS, columns=feed_schema(spec.events)).to_table([entity.column])
    values = events[entity.column].unique().drop_null().to_pylist()
    if count := look_alikes(values, entity):
        how = "in upper and lower case, spaces or the form of Unicode characters alone"
        yield f"{count} values of {entity.column} differ from this one {how}: if they are the person, {_AGAIN} for each"


def _waiting_predictions(spec: SourceSpec, settings: StateSettings) -> Iterator[str]:
    for model in models_of(spec.name, settings.models_dir):
        try:
            service = load_model_spec(model, settings.models_dir, settings.feature_repo).serving
            urls = settings.replicas(service)
        except StepError as error:
            yield f"Replicas of {model} were not asked whether predictions wait, because {error.message}"
            continue
        for status in Replicas(urls, model, settings.serving_api_key).statuses():
            if status.unshipped:
                yield f"{status.url} has predictions of {model} that are not in the lake yet: {_AGAIN} in a minute"
            elif status.unshipped is None:
                why = status.problem or "it is of an older version"
                yield f"{status.url} does not say whether predictions of {model} wait ({why}): {_AGAIN} when it runs"


def _of_models(models: Collection[str], settings: StateSettings) -> Iterator[str]:
    for model in models:
        work = storage.join(settings.work, model)
        if reports := [each for each in storage.folders(work) if each not in (*MADE_AGAIN, DATA_DOCS)]:
            shown = "may show single values, also as names of slices and categories"
            yield f"Reports in {work} ({', '.join(reports)}) {shown}: delete the folders if these must go"
        if deleted := deleted_runs(settings.tracking_uri, model):
            yield f"{deleted} deleted runs of {model} keep their artifacts until you run `mlflow gc`"


def _copies(settings: StateSettings) -> Iterator[str]:
    """Of the state, on this machine."""
    for kind in ("backups", "rerun"):
        folder = f"{settings.home}-{kind}"
        if names := storage.folders(folder):
            yield f"{folder} has {len(names)} copies of the state, which may hold the rows: delete older ones"


_EVERYWHERE = (
    "Replicas have copies of versions on their disks, with golden rows, until the next version replaces them. To "
    "have none now, delete <CT_SERVING_STATE>/models/<model> and start the replica again.",
    "A replica that does not run now may have predictions on its disk: run this again when it has run.",
    "Backups made before now hold the rows: delete them when their time is over, and run this again after a restore.",
    "Delta's log keeps the smallest and the largest value of each column of a file, also of files that are gone.",
    "Holdout rows of registered versions keep features, labels and times of single events, without the entities.",
    "Features of other entities, and models, were computed from the rows and stay; they do not name the person.",
    "If a DAG ran this, Airflow has the value in the parameters of the run and in its log: delete the run in Airflow.",
)
