"""Make a backup while the loop runs, in the order that training/backup/__init__.py explains."""

import re
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from training import storage
from training.adapters import databases
from training.adapters.lake import PREDICTIONS, QUARANTINE
from training.backup import files
from training.backup.manifest import (
    AIRFLOW,
    ARTIFACTS,
    DATABASE,
    FEAST,
    LAKE,
    LEDGER,
    MANIFEST,
    REGISTRY,
    WORK,
    FileRecord,
    Manifest,
)
from training.contract.errors import ConfigError, StepError
from training.contract.model_spec import model_names, source_of
from training.contract.source_spec import load_source_spec, source_names
from training.delta_log import LOG_FOLDER
from training.settings import Settings

#: The name of a backup: when it began, in UTC.
_NAME = "%Y%m%dT%H%M%S.%fZ"
#: Of a log: its commits and their checkpoints. `_last_checkpoint` only spares readers a listing, and may be newer.
_COMMIT, _LOG_FILE = re.compile(r"(\d{20})\.json"), re.compile(r"(\d{20})\.(json|checkpoint.*\.parquet)")
#: How often ledger and registry are copied until no entry was written in between.
_ATTEMPTS = 5
#: Called after each part, with its name and the number of files.
Report = Callable[[str, int], None]


def make_backup(settings: Settings, report: Report = lambda part, count: None) -> str:
    """Returns the URI of the new backup. Raises TransientError when a database or a store does not answer."""
    began = datetime.now(UTC)
    name = began.strftime(_NAME)
    earlier = [folder for folder in storage.folders(settings.backups) if re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z", folder)]
    if (newest := max(earlier, default="")) >= name:
        # The clock was set back. The newest backup must still have the last name.
        name = (datetime.strptime(newest, _NAME) + timedelta(microseconds=1)).strftime(_NAME)
    return _Backup(settings, storage.join(settings.backups, name), report).make(began)


class _Backup:
    def __init__(self, settings: Settings, uri: str, report: Report) -> None:
        self._settings, self._uri, self._report = settings, uri, report
        self._files: dict[str, FileRecord] = {}
        self._absent: list[str] = []
        self._feeds = _feeds(settings)

    def make(self, began: datetime) -> str:
        if not storage.is_remote(self._uri):
            # Databases have people's names and connections: nobody else may read them.
            storage.local(self._settings.backups).mkdir(mode=0o700, parents=True, exist_ok=True)
        settings, feast = self._settings, str(Path(self._settings.feature_registry).parent)
        self._database(settings.airflow_database, AIRFLOW)
        self._ledger_and_registry()
        self._tree(settings.artifacts, ARTIFACTS)
        self._tree(settings.work, WORK, without="results/")
        # Last the databases: the records beside an online store say what it holds at least.
        self._tree(feast, FEAST, key=lambda path: (path.endswith(".db"), path))
        self._logs("feature tables", lambda source, table: not (self._is_first(table) or self._is_feed(source, table)))
        self._logs("feeds", self._is_feed)
        self._tree(settings.lake, LAKE, keep=lambda path: f"/{LOG_FOLDER}/" not in path)
        models = model_names(settings.models_dir)
        manifest = Manifest(
            began=began,
            ended=datetime.now(UTC),
            git_sha=settings.git_sha,
            artifacts=settings.artifacts,
            sources={model: source for model in models if (source := source_of(model, settings.models_dir))},
            absent=self._absent,
            files=self._files,
        )
        storage.write(storage.join(self._uri, MANIFEST), manifest.model_dump_json(indent=1).encode())
        return self._uri

    def _ledger_and_registry(self) -> None:
        """Until no entry came in between, if possible: then no alias is newer than the ledger either."""
        for attempt in range(_ATTEMPTS):
            before = storage.tree(self._settings.ledger)
            self._tree(self._settings.ledger, LEDGER)
            self._logs(PREDICTIONS, lambda source, table: self._is_first(table))
            self._database(self._settings.registry_database, REGISTRY)
            if attempt == _ATTEMPTS - 1 or before == storage.tree(self._settings.ledger):
                return

    @staticmethod
    def _is_first(table: str) -> bool:
        return table.startswith(f"{PREDICTIONS}/")

    def _is_feed(self, source: str, table: str) -> bool:
        return table in self._feeds.get(source, {QUARANTINE})

    def _database(self, url: str, part: str) -> None:
        target = storage.join(self._uri, part, DATABASE)
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, DATABASE)
            found = databases.dump(url, copy)
            if found:
                self._put(str(copy), target)
            elif (missing := f"There is no database {databases.sqlite_path(url)}.") not in self._absent:
                self._absent.append(missing)
        self._report(part, int(found))

    def _logs(self, part: str, wanted: Callable[[str, str], bool]) -> None:
        """The logs of those tables, each without gaps: a listing may miss a commit and show the next."""
        lake, logs = self._settings.lake, dict[str, list[str]]()
        for path in storage.tree(lake):
            folder, _, name = path.rpartition("/")
            if folder.endswith(f"/{LOG_FOLDER}") and _LOG_FILE.fullmatch(name):
                logs.setdefault(folder, []).append(name)
        count = 0
        for folder, names in logs.items():
            source, _, table = folder.removesuffix(f"/{LOG_FOLDER}").partition("/")
            if wanted(source, table):
                kept = _without_gap(names)
                count += len(kept)
                for name in kept:
                    self._put(storage.join(lake, folder, name), storage.join(self._uri, LAKE, folder, name))
        self._report(part, count)

    def _tree(
        self,
        uri: str,
        part: str,
        without: str = "",
        keep: Callable[[str], bool] = lambda path: True,
        key: Callable[[str], tuple[bool, str]] = lambda path: (False, path),
    ) -> None:
        paths = [path for path in storage.tree(uri) if keep(path) and not (without and path.startswith(without))]
        shown = [path for path in paths if not path.endswith(databases.BESIDE) and not files.is_draft(path)]
        for path in sorted(shown, key=key):
            self._put(storage.join(uri, path), storage.join(self._uri, part, path), live=True)
        self._report(part, len(shown))

    def _put(self, source: str, target: str, live: bool = False) -> None:
        if found := files.copy(source, target, live=live):
            self._files[target.removeprefix(f"{self._uri}/")] = found


def _feeds(settings: Settings) -> dict[str, set[str]]:
    """The feeds of each source whose spec can be read, and its quarantine."""
    found = {}
    for name in source_names(settings.feature_repo):
        try:
            found[name] = {*load_source_spec(name, settings.feature_repo).feeds, QUARANTINE}
        except (ConfigError, StepError):
            continue
    return found


def _without_gap(names: Iterable[str]) -> list[str]:
    """The commits of a log up to the first gap, and their checkpoints. Commits before a checkpoint may be gone."""
    names = sorted(names)
    numbers = [int(found[1]) for name in names if (found := _COMMIT.fullmatch(name))]
    last = next((n for n, after in pairwise(numbers) if after != n + 1), max(numbers, default=-1))
    return [name for name in names if int(name[:20]) <= last]
