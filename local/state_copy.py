"""Copies the state of a stack into another folder, so that a step can run on the copy. It changes nothing of the stack.

The stack may run meanwhile: commits of a table that are newer than the copy are not in it, and databases are copied by
SQLite. Files of tables, which nobody changes once they are written, are hard links where the file system allows it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from training import storage
from training.adapters.databases import BESIDE, copy_sqlite, is_sqlite
from training.contract.errors import InputError
from training.delta_log import LOG_FOLDER
from training.settings import StateSettings


@dataclass(frozen=True)
class _File:
    source: Path
    target: Path
    #: Whether nobody changes the file once it is written.
    final: bool = False


def copy_state(live: StateSettings, folder: Path, mlflow: bool) -> list[str]:
    """Copy lake, ledger, work, Feast's files and, with `mlflow`, MLflow's, into `folder`, laid out as a CT_HOME.

    Returns what could not be copied, as sentences. Raises InputError when a part is in an object store, when `folder`
    is not empty, or when its disk is too small.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty", "Name a new folder: COPY=<folder>, or delete it.")
    files = [
        *_tables(_local(live.lake, "CT_LAKE_URI"), folder / "lake"),
        *_files(_local(live.ledger, "CT_LEDGER_URI"), folder / "ledger"),
        *_files(_local(live.work, "CT_WORK_URI"), folder / "work", without="results"),
        *_files(Path(live.feature_registry).parent, folder / "feast"),
        *(_files(live.home / "mlflow", folder / "mlflow") if mlflow else ()),
    ]
    missing = []
    online = Path(live.online)
    if "://" in live.online:
        missing.append("The online store is not a file. The copy has an empty one.")
    elif online.exists() and online.parent != Path(live.feature_registry).parent:
        files.append(_File(online, folder / "feast" / "online.db"))
    if mlflow and not (live.home / "mlflow" / "mlflow.db").exists():
        missing.append(f"There is no {live.home}/mlflow/mlflow.db. The copy has no runs and no registered versions.")
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(files, folder)
    for each in files:
        each.target.parent.mkdir(parents=True, exist_ok=True)
        # Gone: a temporary file, or one that was replaced.
        with suppress(FileNotFoundError):
            _copy(each)
    return missing


def _local(uri: str, setting: str) -> Path:
    if storage.is_remote(uri):
        hint = f"Copy it to a folder with your store's own tool and set {setting} to that folder."
        raise InputError(f"{uri} is in an object store, and a rerun works on a copy", hint)
    return storage.local(uri)


def _tables(lake: Path, to: Path) -> Iterator[_File]:
    """The files of all tables of the lake. The logs come first: the files that they name exist already."""
    logs = [path for path in sorted(lake.glob(f"**/{LOG_FOLDER}/*")) if path.name != "_last_checkpoint"]
    # _last_checkpoint only spares readers a listing. It could name a checkpoint that is newer than this copy.
    yield from (_File(path, to / path.relative_to(lake)) for path in logs if path.is_file())
    for each in _files(lake, to, without=LOG_FOLDER):
        yield _File(each.source, each.target, final=each.source.suffix == ".parquet")


def _files(folder: Path, to: Path, without: str = "") -> Iterator[_File]:
    """The files below `folder`, but not those in folders called `without`."""
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != without)
        for name in sorted(names):
            if not name.endswith(BESIDE):
                yield _File(path := Path(at, name), to / path.relative_to(folder))


def _check_space(files: list[_File], folder: Path) -> None:
    needed = 0
    for each in files:
        with suppress(FileNotFoundError):
            needed += 0 if each.final else each.source.stat().st_size
    free = shutil.disk_usage(folder).free
    if needed > free:
        problem = f"The state takes {needed / 1024**3:.1f} GB, and {folder} has {free / 1024**3:.1f} GB free"
        raise InputError(problem, "Free some, or name a folder on another disk: COPY=<folder>.")


def _copy(file: _File) -> None:
    if file.final:
        # Another file system, or one without hard links.
        with suppress(OSError):
            os.link(file.source, file.target)
            return
    if is_sqlite(file.source):
        copy_sqlite(file.source, file.target)
    else:
        shutil.copy2(file.source, file.target)
