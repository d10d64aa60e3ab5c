"""A record of what is online: for each feature view its table, its version, and the features that rows may have.

The version is that of a commit, which `commit` tells from another one with the same number.
"""

import json
import logging
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from training import storage
from training.adapters.lake import Lake
from training.settings import StateSettings

log = logging.getLogger("perennial")


class OnlineRecord:
    """The file `<source>.online.json` beside the published registry. Use it under `registry_lock`.

    Call `begin` before the first write to the store and `end` after the last. When a materialization is killed in
    between, the next one knows which features may be online.
    """

    def __init__(self, settings: StateSettings, source: str) -> None:
        self._path = Path(settings.feature_registry).with_name(f"{source}.online.json")
        self._views: dict[str, dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def newer_than(self, view: str, lake: Lake, version: int) -> int | None:
        """The version of `view` that is online, if the lake has it and it is newer than `version`; else None.

        The lake does not have it when its table was created anew, or restored from an older copy: another commit, or
        none, has that number then.
        """
        entry = self._views.get(view, {})
        known: int = entry.get("version", -1)
        if known <= version or entry.get("table") != lake.identity(view):
            return None
        found, commit = lake.commit_digest(view, known), entry.get("commit")
        if known > (lake.version(view) or 0) or (found and commit and found != commit):
            log.warning(
                "%s: version %d is online, and the lake does not have it: its table was restored from an older copy. "
                "Version %d takes its place",
                *(view, known, version),
            )
            return None
        return known

    def begin(self, view: Any, lake: Lake, version: int, as_of: date | None) -> None:
        """Record that `version` of the view's table, up to the day `as_of`, is being written to the store."""
        features, columns = self.stored(view.name)
        self._views[view.name] = {
            "mark": None,
            "version": version,
            "table": lake.identity(view.name),
            "commit": lake.commit_digest(view.name, version),
            "as_of": as_of and as_of.isoformat(),
            "features": sorted({*features, *(feature.name for feature in view.features)}),
            "entity_columns": sorted({*columns, *view.join_keys}),
        }
        self._write()

    def end(self, view: Any, mark: str) -> None:
        """Record that the version of `begin` is online, and that nothing else of `view` is.

        `mark`: what the store has noted about it.
        """
        names = sorted(feature.name for feature in view.features)
        found = {"features": names, "entity_columns": sorted(view.join_keys), "mark": mark, "types": _types(view)}
        self._views[view.name] |= found
        self._write()

    def complete_version(self, view: Any, lake: Lake, mark: str | None) -> int | None:
        """The version whose rows are online, all of them and no others; None when that is not certain.

        `mark`: what the store says of `view`. A store that was emptied or restored from a copy says something else.
        """
        entry = self._views.get(view.name, {})
        if mark is None or entry.get("mark") != mark or entry.get("types") != _types(view):
            return None
        version: int = entry["version"]
        commit = lake.commit_digest(view.name, version)
        same = entry["table"] == lake.identity(view.name) and commit is not None and commit == entry["commit"]
        return version if same else None

    def written(self, view: str) -> str | None:
        """What the store noted when all rows of `view` were last written; None while that is not certain."""
        found: str | None = self._views.get(view, {}).get("mark")
        return found

    def stored(self, view: str) -> tuple[list[str], list[str]]:
        """The features and the entity columns that the rows of `view` in the store may have."""
        entry = self._views.get(view, {})
        return entry.get("features", []), entry.get("entity_columns", [])

    def newest(self, views: Iterable[str]) -> date | None:
        """The newest feature day that is online in any of `views`."""
        found = [self._views[view]["as_of"] for view in views if view in self._views]
        return max((date.fromisoformat(day) for day in found if day), default=None)

    def _write(self) -> None:
        storage.write(str(self._path), json.dumps(self._views).encode())


def _types(view: Any) -> dict[str, str]:
    """Entity and features → their types, which decide how the store has their values."""
    return {field.name: str(field.dtype) for field in (*view.entity_columns, *view.features)}
