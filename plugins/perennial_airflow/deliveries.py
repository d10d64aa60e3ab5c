"""The content of a source's landing folder: deliveries, `<landing>/<source>/<feed>/<partition>.parquet`, and strays.

A delivery is a file, or a folder of part files with an empty file `_SUCCESS`, as Spark writes it. The extension may be
in capitals. Names that begin with a dot or an underscore are ignored. Anything else is a stray.
"""

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from training import storage
from training.contract.source_spec import source_names
from training.settings import load_settings

ENDING = ".parquet"
#: An empty file that marks a folder of part files as complete.
COMPLETE = "_SUCCESS"

#: A file that has not changed for this many seconds counts as complete. Writers that rename files do not need this.
SETTLE_SECONDS = 1.0
#: A file that changed more than these seconds in the future counts as complete: the clock was set back since. Clocks of
#: two machines may differ by less.
SET_BACK_SECONDS = 60.0


#: Folders below the landing folder: sources, feeds, folders of part files.
DEPTH = 3


class Folders(Protocol):
    """Lists folders: `storage`, or a `storage.Tree` that was read before."""

    def listing(self, uri: str) -> storage.Listing: ...
    def files(self, uri: str) -> list[storage.File]: ...


def landing_folder(source: str) -> str:
    return storage.join(load_settings().landing, source)


def landed_file(source: str, feed: str, file: str) -> str:
    """The URI of the delivery `file` of a feed. The arguments may be templates."""
    return storage.join(landing_folder(source), feed, file)


@dataclass(frozen=True)
class Delivery:
    """One delivery in its present version. The same key delivered again has another fingerprint."""

    feed: str
    partition: str
    fingerprint: str
    #: The name of the file or folder in the feed's folder.
    name: str

    @property
    def key(self) -> str:
        return f"{self.feed}/{self.partition}"

    def run_id(self, number: int) -> str:
        """The id of the data run that ingests this as delivery `number` of its key.

        Airflow refuses a second run with the same id, so starting a run twice does no harm. Without the number, an old
        file that comes back (same name, size and time) would get the id of its first delivery.
        """
        partition = re.sub(r"[^A-Za-z0-9_.-]", "-", self.partition)
        return f"{self.feed}_{partition}_{number}_{self.fingerprint}"


@dataclass(frozen=True)
class Stray:
    """Something in the landing folder that is not a delivery and is not ingested."""

    #: The path below the landing folder. A folder ends with a slash.
    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def scan(
    folder: str,
    feeds: Sequence[str],
    now: float,
    settle_seconds: float = SETTLE_SECONDS,
    within: Folders = storage,
) -> list[Delivery]:
    """The deliveries in a source's landing folder, in the order of ingestion.

    Deliveries that changed less than `settle_seconds` before `now` (seconds since the epoch) are left out. Raises the
    errors of training/storage.py.
    """
    found: dict[str, Delivery] = {}
    for feed in feeds:
        for name, files in _candidates(storage.join(folder, feed), within):
            if files and _settled(now - max(file.changed.timestamp() for file in files), settle_seconds):
                stamps = "\0".join(f"{file.name}\0{file.stamp}" for file in files) if len(files) > 1 else files[0].stamp
                fingerprint = hashlib.sha256(stamps.encode()).hexdigest()[:8]
                delivery = Delivery(feed, name[: -len(ENDING)], fingerprint, name)
                found.setdefault(delivery.key, delivery)
    return in_order(found.values(), feeds)


def _settled(age: float, settle_seconds: float) -> bool:
    return age >= settle_seconds or age < -SET_BACK_SECONDS


def in_order(deliveries: Iterable[Delivery], feeds: Sequence[str]) -> list[Delivery]:
    """In the order of ingestion: older days first, then as in `feeds`."""
    return sorted(deliveries, key=lambda d: (d.partition[:10], feeds.index(d.feed), d.partition))


Found = Mapping[str, list[Delivery] | Exception]


def scan_all(landing: str, settle_seconds: float) -> tuple[Found, storage.Tree]:
    """The deliveries of all sources by source, or why they could not be listed; and the landing folder as it was read.

    A delivery is in any folder of the source's, whether the source has such a feed or not.
    """
    now, tree = time.time(), storage.Tree(landing, DEPTH)
    found: dict[str, list[Delivery] | Exception] = {}
    for source in tree.listing(landing).folders:
        folder = storage.join(landing, source)
        try:
            found[source] = scan(folder, tree.listing(folder).folders, now, settle_seconds, tree)
        except Exception as error:
            found[source] = error
    return found, tree


def strays(source: str, feeds: Sequence[str], within: Folders = storage) -> list[Stray]:
    """The strays in a source's landing folder, sorted by path. Raises the errors of training/storage.py.

    The strays beside the sources' folders count as the first source's.
    """
    settings = load_settings()
    sources = source_names(settings.feature_repo)
    found = list(_strays_beside_feeds(source, feeds, within))
    for feed in feeds:
        found += _strays_of_feed(landing_folder(source), source, feed, within)
    if sources and source == sources[0]:
        beside = within.listing(settings.landing)
        why = f"no source has this name; the sources are {', '.join(sources)}"
        found += [Stray(f"{name}/", why) for name in beside.folders if name not in sources and not _hidden(name)]
        why = "a file beside the sources' folders"
        found += [Stray(file.name, why) for file in beside.files if not _hidden(file.name)]
    return sorted(found, key=lambda stray: stray.path)


def _strays_beside_feeds(source: str, feeds: Sequence[str], within: Folders) -> Iterator[Stray]:
    content = within.listing(landing_folder(source))
    why = f"the feeds' folders are {' and '.join(feeds)}, in lower case"
    for name in content.folders:
        if name not in feeds and not _hidden(name):
            yield Stray(f"{source}/{name}/", why)
    for file in content.files:
        if not _hidden(file.name):
            yield Stray(f"{source}/{file.name}", f"a file beside the feeds' folders {' and '.join(feeds)}")


def _strays_of_feed(folder: str, source: str, feed: str, within: Folders) -> Iterator[Stray]:
    content = within.listing(storage.join(folder, feed))
    names = [file.name for file in content.files] + [f"{name}/" for name in content.folders]
    for name in names:
        if not _hidden(name) and not _is_parquet(name.rstrip("/")):
            yield Stray(f"{source}/{feed}/{name}", f"its name is not <partition>{ENDING}")
    seen: dict[str, str] = {}
    for name, files in _candidates(storage.join(folder, feed), within):
        if not files:
            why = f"a folder without {COMPLETE}: its writer has not finished, or does not mark it as complete"
            yield Stray(f"{source}/{feed}/{name}/", why)
        elif (first := seen.setdefault(name[: -len(ENDING)], name)) != name:
            yield Stray(f"{source}/{feed}/{name}", f"the same partition as {first}, which is ingested")


def _candidates(folder: str, within: Folders) -> Iterator[tuple[str, list[storage.File]]]:
    """The name and the files of everything in a feed's folder that is named like a delivery. No files: not complete.

    When there are two for a partition, a file comes before a folder, and small letters before capitals.
    """
    content = within.listing(folder)
    found = [(file.name, [file]) for file in content.files if _is_parquet(file.name)]
    for name in content.folders:
        if _is_parquet(name):
            files = within.files(storage.join(folder, name))
            complete = any(file.name == COMPLETE for file in files)
            found.append((name, files if complete else []))
    yield from sorted(found, key=lambda one: (len(one[1]) != 1, not one[0].endswith(ENDING), one[0]))


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(ENDING) and len(name) > len(ENDING) and not _hidden(name)


def _hidden(name: str) -> bool:
    return name.startswith((".", "_"))


class Announced:
    """The deliveries that have a data run: key → (number, fingerprint) of the newest. In Airflow's asset state store.

    A key is kept even when its file is deleted, so that a file that comes back is not taken for a first delivery. A key
    takes about 45 bytes; two daily feeds need 33 kB a year.
    """

    KEY = "announced"

    def __init__(self, stored: object = None) -> None:
        entries = stored if isinstance(stored, dict) else {}
        self._entries: dict[str, tuple[int, str]] = {key: (int(n), str(f)) for key, (n, f) in entries.items()}

    def new(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Those of `deliveries` that have no data run yet, in the same order."""
        return [d for d in deliveries if self._entries.get(d.key, (0, ""))[1] != d.fingerprint]

    def number(self, delivery: Delivery) -> int:
        """The number of a new delivery among those of its key, from 1."""
        return self._entries.get(delivery.key, (0, ""))[0] + 1

    def add(self, delivery: Delivery) -> None:
        self._entries[delivery.key] = (self.number(delivery), delivery.fingerprint)

    def stored(self) -> dict[str, list[int | str]]:
        return {key: [number, fingerprint] for key, (number, fingerprint) in self._entries.items()}


class Reported:
    """The strays that have been reported: path → why. In Airflow's asset state store, so that each is reported once.

    A stray that is gone is forgotten, and reported again when it comes back.
    """

    KEY = "not understood"

    def __init__(self, stored: object = None) -> None:
        self._reported: dict[str, str] = dict(stored) if isinstance(stored, dict) else {}

    def new(self, found: list[Stray]) -> list[Stray]:
        return [stray for stray in found if self._reported.get(stray.path) != stray.why]

    @staticmethod
    def stored(found: list[Stray]) -> dict[str, str]:
        return {stray.path: stray.why for stray in found}
