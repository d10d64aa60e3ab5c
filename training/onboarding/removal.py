"""What goes when a source or a model is removed, and what stays.

What is made of the files goes: they themselves, aliases, online rows, Feast objects, work files. What cannot be made
again stays: events, labels, predictions, versions, the ledger.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain, count
from pathlib import Path

from training import storage
from training.adapters.features.withdrawal import service_is_published, withdraw_service, withdraw_source
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry
from training.contract.errors import InputError
from training.contract.life import EVENTS, OVERVIEWS
from training.contract.model_spec import model_names, models_of
from training.contract.names import NAME_PATTERN, did_you_mean
from training.contract.source_spec import load_source_spec, source_names
from training.contract.traffic import TAGS
from training.settings import ServingSettings
from training.workspace import DATA_DOCS, MADE_AGAIN

#: The kind of the ledger's entry on the removal of a model.
REMOVAL = "removal"
_NO_REPORTS = (*MADE_AGAIN, DATA_DOCS)


@dataclass(frozen=True)
class Change:
    what: str
    do: Callable[[], object]


@dataclass(frozen=True)
class Removal:
    """`changes`, in the order in which they are made; `stays`: what remains, and why."""

    changes: list[Change]
    stays: list[str]


def model_removal(name: str, settings: ServingSettings) -> Removal:
    """How to remove the model `name`. A removal that was killed is continued.

    Raises InputError when nothing of such a model is there, TransientError when MLflow does not answer.
    """
    _require_name("model", name)
    spec = settings.models_dir / f"{name}.yaml"
    changes = list(_model_changes(name, spec, settings))
    if not changes:
        known = model_names(settings.models_dir)
        hint = f"{did_you_mean(name, known)}The models: {', '.join(known) or 'none'}."
        raise InputError(f"There is no model {name!r}: no file {spec}, and nothing else to remove", hint)
    return Removal(changes, list(_model_stays(name, settings)))


def _model_changes(name: str, spec: Path, settings: ServingSettings) -> Iterator[Change]:
    if spec.exists():
        # First: its DAGs disappear, and services stop to serve it.
        yield Change(f"move {spec} to {_kept(settings, spec)}", partial(_move_spec, name, spec, settings))
    state = Registry(settings.tracking_uri).state(name)
    if state.aliases or set(TAGS) & set(state.tags):
        listed = ", ".join(f"{alias} (version {version})" for alias, version in sorted(state.aliases.items()))
        what = f"remove the aliases and traffic tags of {name} in MLflow: {listed or 'no aliases'}"
        yield Change(what, partial(Registry(settings.tracking_uri).retire, name))
    if service_is_published(settings, name):
        yield Change(
            f"delete the feature service {name} from Feast's registry", partial(withdraw_service, settings, name)
        )
    work = storage.join(settings.work, name)
    for folder in storage.folders(work):
        if folder in MADE_AGAIN:
            yield _deletion(storage.join(work, folder), "made of the lake, or a copy of what MLflow has")
    events = storage.join(settings.work, EVENTS, "models", name)
    if _is_there(events):
        yield _deletion(events, "what the pages about models show of its tasks")
    summary = storage.join(settings.work, OVERVIEWS, f"{name}.json")
    if storage.size(summary) is not None:
        yield Change(f"delete {summary}: its summary on the pages", partial(storage.remove, summary))
    copies = Path(settings.serving) / "models" / name
    if copies.exists():
        yield _deletion(str(copies), "the copies of its versions, from which a service starts while MLflow is down")


def _model_stays(name: str, settings: ServingSettings) -> Iterator[str]:
    for source in storage.folders(settings.lake):
        if name in storage.folders(storage.join(settings.lake, source, "predictions")):
            place = storage.join(settings.lake, source, "predictions", name)
            yield f"its predictions in {place}: they say what was decided. Delete the folder when nobody needs them"
    for waiting in sorted(Path(settings.serving, "predictions").glob(f"*/{name}")):
        yield f"{waiting}: predictions that may not be in the lake yet. A running service ships them"
    if reports := [each for each in storage.folders(storage.join(settings.work, name)) if each not in _NO_REPORTS]:
        yield f"the reports in {storage.join(settings.work, name)}: {', '.join(reports)}"
    yield f"its versions and runs in MLflow, and its ledger in {storage.join(settings.ledger, name)}: the evidence"
    yield f"the history of {name}_train, {name}_monitor, … in Airflow: `airflow dags delete {name}_train` deletes one"


def source_removal(name: str, settings: ServingSettings) -> Removal:
    """How to remove the source `name`. A removal that was killed is continued.

    Raises InputError when there is no such source, or when models learn from it; ConfigError when its files have
    mistakes.
    """
    _require_name("source", name)
    if models := models_of(name, settings.models_dir):
        removals = ", ".join(f"make remove-model NAME={model}" for model in models)
        raise InputError(f"Models learn from {name}: {', '.join(models)}", f"Remove them first: {removals}.")
    if name not in source_names(settings.feature_repo):
        known = source_names(settings.feature_repo)
        hint = f"{did_you_mean(name, known)}The sources: {', '.join(known) or 'none'}."
        raise InputError(f"There is no source {name!r} in {settings.feature_repo}", hint)
    return Removal(list(_source_changes(name, settings)), list(_source_stays(name, settings)))


def _source_changes(name: str, settings: ServingSettings) -> Iterator[Change]:
    spec = load_source_spec(name, settings.feature_repo)
    tables = f": {', '.join(spec.features.tables)}" if spec.features.tables else ""
    what = f"delete its online rows, and its views, entities and services from Feast's registry{tables}"
    yield Change(what, partial(withdraw_source, settings, spec))
    docs = storage.join(settings.work, name, DATA_DOCS)
    if _is_there(docs):
        yield _deletion(docs, "the pages on its partitions")
    record = storage.join(settings.work, "checks", f"{name}.json")
    if storage.read(record) is not None:
        yield Change(f"delete {record}: the record of its check", partial(storage.remove, record))
    # The spec last: without it, a removal that was killed could not be continued.
    for extension in ("sql", "py", "yaml"):
        path = settings.feature_repo / f"{name}.{extension}"
        if path.exists():
            yield Change(f"move {path} to {_kept(settings, path)}", partial(_move, path, settings))


def _source_stays(name: str, settings: ServingSettings) -> Iterator[str]:
    lake, landing = storage.join(settings.lake, name), storage.join(settings.landing, name)
    if _is_there(lake):
        yield f"its tables in {lake}: events and labels cannot be made again. Delete the folder when nobody needs them"
    if _is_there(landing):
        yield f"its files in {landing}: whoever delivers them also removes them"
    yield f"the history of {name}_landing and {name}_data in Airflow: `airflow dags delete {name}_data` deletes one"


def _require_name(kind: str, name: str) -> None:
    """Raises InputError for a name that could lead out of the folders."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(f"{name!r} is not the name of a {kind}", "Write NAME=<one of those of `make check`>.")


def _kept(settings: ServingSettings, path: Path) -> Path:
    """Where the file at `path` is kept. A file of this name that was removed before stays: the SQL of a source may be
    nowhere else."""
    folder, content = settings.scratch / "removed", path.read_bytes()
    names = chain([path.name], (f"{path.stem}-{number}{path.suffix}" for number in count(2)))
    return next(kept for name in names if not (kept := folder / name).exists() or kept.read_bytes() == content)


def _move_spec(name: str, spec: Path, settings: ServingSettings) -> None:
    aliases = dict(Registry(settings.tracking_uri).state(name).aliases)
    body = {"spec": spec.read_text(), "aliases": aliases}
    Ledger(settings.ledger).append(REMOVAL, name, body, key=datetime.now(UTC).isoformat())
    _move(spec, settings)


def _move(path: Path, settings: ServingSettings) -> None:
    storage.write(str(_kept(settings, path)), path.read_bytes())
    path.unlink()


def _deletion(uri: str, what: str) -> Change:
    return Change(f"delete {uri}: {what}", partial(storage.remove_folder, uri))


def _is_there(uri: str) -> bool:
    found = storage.listing(uri)
    return bool(found.files or found.folders)
