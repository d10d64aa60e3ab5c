"""The record of what is online: for each feature view the table, the version, and the features that may be there."""

import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from training import storage
from training.settings import StateSettings


class OnlineRecord:
    """`<model>.online.json` beside the published registry. Use it under `registry_lock`.

    `begin` comes before the first write to the store and `end` after the last: when a materialization is killed in
    between, the next one knows what may be there.
    """

    def __init__(self, settings: StateSettings, model: str) -> None:
        self._path = Path(settings.feature_registry).with_name(f"{model}.online.json")
        self._views: dict[str, dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def newer_than(self, view: str, table: str, version: int) -> int | None:
        """The version of `view` that is online when it is newer than `version`; None when it is not.

        Versions of another `table` (its id in the lake, see Lake.identity) say nothing: it has been created anew.
        """
        entry = self._views.get(view, {})
        known: int = entry.get("version", -1)
        return known if known > version and entry.get("table") == table else None

    def begin(self, view: Any, table: str, version: int, as_of: date | None) -> None:
        """`version` of `table`, up to the day `as_of`, is about to be put online."""
        features, columns = self.seen(view.name)
        self._views[view.name] = {
            "version": version,
            "table": table,
            "as_of": as_of and as_of.isoformat(),
            "features": sorted({*features, *(feature.name for feature in view.features)}),
            "entity_columns": sorted({*columns, *view.join_keys}),
        }
        self._write()

    def end(self, view: Any) -> None:
        """What `begin` announced is online, and nothing else of `view`."""
        names = sorted(feature.name for feature in view.features)
        self._views[view.name] |= {"features": names, "entity_columns": sorted(view.join_keys)}
        self._write()

    def seen(self, view: str) -> tuple[list[str], list[str]]:
        """The features and the entity columns that rows of `view` online may have."""
        entry = self._views.get(view, {})
        return entry.get("features", []), entry.get("entity_columns", [])

    def newest(self, views: Iterable[str]) -> date | None:
        """The newest feature day that is online in any of `views`."""
        found = [self._views[view]["as_of"] for view in views if view in self._views]
        return max((date.fromisoformat(day) for day in found if day), default=None)

    def _write(self) -> None:
        storage.write(str(self._path), json.dumps(self._views).encode())
