"""`python -m training.migrate [--apply]`: brings specs, lake and landing of the layout before to that of this version.

Without `--apply` it prints what it would do. It can be killed at any point and run again. Nothing else may use the
state meanwhile. The names of models in MLflow and in the ledger, and the work folder, stay as they are.
"""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from training import storage
from training.contract.errors import ExitCode, StepError
from training.contract.model_spec import model_names, source_of
from training.contract.yaml_file import read_fields
from training.delta_log import LOG_FOLDER
from training.layout import LAYOUT, layout_of, mark
from training.settings import StateSettings, load_settings
from training.split_spec import split_spec

_PREDICTIONS = "predictions"
#: Where the predictions of a model lie while they move into their own folder.
_ON_THE_WAY = ".predictions-on-the-way"


@dataclass(frozen=True)
class Change:
    what: str
    do: Callable[[], None]


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or the exit code of the error."""
    parser = argparse.ArgumentParser(prog="training.migrate")
    parser.add_argument("--apply", action="store_true", help="make the changes; without it they are only shown")
    apply = parser.parse_args(argv).apply
    try:
        settings = load_settings()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        found = migrate(settings, apply)
    except StepError as error:
        print(f"migrate failed: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"migrate failed: {error}\n  → Check the permissions, then run it again.", file=sys.stderr)
        return ExitCode.BAD_CONFIG
    if not found:
        print(f"Nothing to do: specs, lake and ledger have layout {LAYOUT}.")
    elif not apply:
        print("Nothing was changed. Stop everything that uses this state, then run `make migrate ARGS=--apply`.")
    return ExitCode.OK


def migrate(settings: StateSettings, apply: bool) -> list[str]:
    """Print every change and, with `apply`, make it. Returns what was printed.

    Raises ConfigError when a model's source is not known, or when something is at the place to which a folder moves.
    """
    shown = []
    # Each group depends on the one before: folders go to the sources that the specs name.
    for group in (_specs, _folders, _markers):
        for change in group(settings):
            print(change.what, flush=True)
            shown.append(change.what)
            if apply:
                change.do()
    return shown


def _specs(settings: StateSettings) -> Iterator[Change]:
    for name in model_names(settings.models_dir):
        path = settings.models_dir / f"{name}.yaml"
        if "feeds" in read_fields(path):
            source = settings.feature_repo / path.name
            yield Change(f"split {path} into {source} and {path}", partial(_split, path, source))


def _split(path: Path, source: Path) -> None:
    found = split_spec(path)
    storage.write(str(source), found.source.encode())
    # Last: as long as the model's file has feeds, the split is made again.
    storage.write(str(path), found.model.encode())


def _folders(settings: StateSettings) -> Iterator[Change]:
    if layout_of(settings.lake) not in (1, None):
        return
    for model in model_names(settings.models_dir):
        # A spec of one file becomes a source of the model's name.
        source = source_of(model, settings.models_dir) or model
        yield from _tables(settings.lake, source, model)
        if source != model:
            yield from _landing(settings.landing, source, model)
            yield from _online(settings, source, model)
            yield from _empty(settings.lake, model)
            yield from _empty(settings.landing, model)


def _tables(lake: str, source: str, model: str) -> Iterator[Change]:
    old, waiting = storage.join(lake, model), storage.join(lake, f"{_ON_THE_WAY}-{model}")
    new = storage.join(lake, source, _PREDICTIONS, model)
    if storage.files(storage.join(old, _PREDICTIONS, LOG_FOLDER)):
        yield _move(storage.join(old, _PREDICTIONS), waiting)
        yield _move(waiting, new)
    elif storage.folders(waiting):
        yield _move(waiting, new)
    if source != model:
        for table in storage.folders(old):
            if table != _PREDICTIONS:
                yield _move(storage.join(old, table), storage.join(lake, source, table))


def _landing(landing: str, source: str, model: str) -> Iterator[Change]:
    for feed in storage.folders(storage.join(landing, model)):
        yield _move(storage.join(landing, model, feed), storage.join(landing, source, feed))


def _empty(uri: str, model: str) -> Iterator[Change]:
    """An object store has no empty folders."""
    folder = None if storage.is_remote(uri) else storage.local(storage.join(uri, model))
    if folder and folder.exists():
        yield Change(f"delete {folder} if it is empty", partial(_remove_empty, folder))


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _online(settings: StateSettings, source: str, model: str) -> Iterator[Change]:
    folder = Path(settings.feature_registry).parent
    old, new = folder / f"{model}.online.json", folder / f"{source}.online.json"
    if old.exists():
        yield Change(f"move {old} to {new}", partial(os.replace, old, new))
    applied = folder / f"{model}.applied"
    if applied.exists():
        yield Change(f"delete {applied}", applied.unlink)


def _markers(settings: StateSettings) -> Iterator[Change]:
    for uri in (settings.lake, settings.ledger):
        if layout_of(uri) == 1:
            yield Change(f"mark {uri} as layout {LAYOUT}", partial(mark, uri))


def _move(source: str, target: str) -> Change:
    return Change(f"move {source} to {target}", partial(storage.move, source, target))


if __name__ == "__main__":
    sys.exit(main())
