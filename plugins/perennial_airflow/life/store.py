"""Where events and summaries are kept, and how they are read: small files in the work folder.

An event is written once and never changed, so tasks that end at the same time need no lock. A summary is made again
from its last state and the events that it has not seen. Whoever writes it looks for new events afterwards: the later of
two writers finds the event of the other.
"""

import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import ValidationError

from perennial_airflow.life.facts import small
from perennial_airflow.life.summary import add
from training import storage
from training.contract.life import ENTRY_NAME, EVENTS, FILE_NAME, OVERVIEWS, Event, Overview, Owner
from training.settings import StateSettings

log = logging.getLogger(__name__)

#: Files that are read at the same time. An object store answers each after some milliseconds.
READERS = 16
#: So many names of events a summary keeps as seen.
SEEN = 100
#: How often a summary is made again, each time because another task has written an event meanwhile.
_ATTEMPTS = 10
R = TypeVar("R")
_pool = lru_cache(1)(lambda: ThreadPoolExecutor(READERS, thread_name_prefix="read"))


def record(event: Event, owner: Owner, name: str, about: dict[str, str], settings: StateSettings) -> None:
    """Write an event, and the summary of its model. `about`: fields of the summary that the model's spec gives."""
    storage.create(storage.join(_folder(owner, name, settings), event.file_name), event.model_dump_json().encode())
    if owner == "models":
        summarize(name, about, settings)


def summarize(model: str, about: dict[str, str], settings: StateSettings) -> None:
    """Bring the summary of a model up to date."""
    folder, uri = _folder("models", model, settings), _overview_uri(model, settings)
    for _ in range(_ATTEMPTS):
        overview = read_overview(uri) or Overview(model=model)
        new = [name for name in _names(folder, FILE_NAME)[-SEEN:] if name not in overview.seen]
        if not new:
            return
        overview = overview.model_copy(update=about)
        for name, event in zip(new, _each(_event, (storage.join(folder, name) for name in new)), strict=True):
            if event is not None:
                overview = _added(overview, event, name)
        overview = overview.model_copy(update={"seen": sorted({*overview.seen, *new})[-SEEN:]})
        storage.write(uri, overview.model_dump_json().encode())


def _added(overview: Overview, event: Event, name: str) -> Overview:
    try:
        return add(overview, event)
    except (KeyError, TypeError, ValueError) as error:
        # Else the summary would stop at this event for ever.
        log.warning("The event %s of %s is left out of its summary: %s", name, overview.model, error)
        return overview


def read_overview(uri: str) -> Overview | None:
    """The summary in a file; None when there is none, or one that cannot be read."""
    try:
        content = storage.read(uri)
        return None if content is None else Overview.model_validate_json(content)
    except ValidationError as error:
        log.warning("%s is not a summary of a model: %s", uri, error)
        return None


class Overviews:
    """The summaries of all models. Those that have not changed since the last look are not read again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Overview | None]] = {}

    def read(self, settings: StateSettings) -> dict[str, Overview]:
        """Model → its summary."""
        folder = storage.join(settings.work, OVERVIEWS)
        listed = {file.name: file.stamp for file in storage.files(folder) if file.name.endswith(".json")}
        known = {name: each for name, each in self._known.items() if listed.get(name) == each[0]}
        changed = [name for name in listed if name not in known]
        found = _each(read_overview, (storage.join(folder, name) for name in changed))
        known |= {name: (listed[name], each) for name, each in zip(changed, found, strict=True)}
        self._known = known
        return {name.removesuffix(".json"): each for name, (_, each) in known.items() if each is not None}


def overview(model: str, settings: StateSettings) -> Overview:
    """The summary of one model; an empty one when nothing has run."""
    return read_overview(_overview_uri(model, settings)) or Overview(model=model)


def events(owner: Owner, name: str, newest: int, settings: StateSettings) -> list[Event]:
    """The newest events of a source or model, oldest first."""
    folder = _folder(owner, name, settings)
    names = _names(folder, FILE_NAME)[-newest:]
    return [each for each in _each(_event, (storage.join(folder, one) for one in names)) if each is not None]


def entries(model: str, newest: int, settings: StateSettings) -> list[dict[str, Any]]:
    """The newest ledger entries of a model, oldest first: their fields as they are written, with long values cut."""
    folder = storage.join(settings.ledger, model)
    names = _names(folder, ENTRY_NAME)[-newest:]
    return [each for each in _each(_entry, (storage.join(folder, one) for one in names)) if each is not None]


@lru_cache(20_000)
def _event(uri: str) -> Event | None:
    try:
        return Event.model_validate_json(storage.read(uri) or b"")
    except ValidationError as error:
        log.warning("%s is not an event: %s", uri, error)
        return None


@lru_cache(20_000)
def _entry(uri: str) -> dict[str, Any] | None:
    try:
        found = json.loads(storage.read(uri) or b"")
        return small(found) if isinstance(found, dict) else None
    except ValueError as error:
        log.warning("%s is not a ledger entry: %s", uri, error)
        return None


def _each(read: Callable[[str], R], uris: Iterable[str]) -> list[R]:
    """Read several files; those of an object store at the same time."""
    wanted = list(uris)
    if not wanted or not storage.is_remote(wanted[0]):
        return [read(uri) for uri in wanted]
    return list(_pool().map(read, wanted))


def _names(folder: str, pattern: Any) -> list[str]:
    return [file.name for file in storage.files(folder) if pattern.fullmatch(file.name)]


def _folder(owner: Owner, name: str, settings: StateSettings) -> str:
    return storage.join(settings.work, EVENTS, owner, name)


def _overview_uri(model: str, settings: StateSettings) -> str:
    return storage.join(settings.work, OVERVIEWS, f"{model}.json")
