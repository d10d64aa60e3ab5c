"""The share of a source's files that one night verifies. `<work>/<source>/verified.json` says which were read when.

Without that file, or with one that cannot be read, all files count as never read.
"""

import json
import logging
from collections.abc import Mapping, Set
from datetime import date

from pydantic import TypeAdapter, ValidationError

from training import storage
from training.domain.verification import Looks, share
from training.settings import StateSettings

log = logging.getLogger("perennial")

_Tables = TypeAdapter(dict[str, dict[str, Looks]])


class NightlyShare:
    """Of the tables of `source` at `night`. `nights`: within how many each file is read."""

    def __init__(self, source: str, night: date, nights: int, settings: StateSettings) -> None:
        self._uri = storage.join(settings.work, source, "verified.json")
        self._night, self._nights = night, nights
        self._before, self._now = self._load(), dict[str, dict[str, Looks]]()

    def _load(self) -> dict[str, dict[str, Looks]]:
        try:
            return _Tables.validate_json(storage.read(self._uri) or b"{}")
        except ValidationError as error:
            log.warning("%s cannot be read, so all files count as never read: %s", self._uri, error)
            return {}

    def of(self, table: str, sizes: Mapping[str, int]) -> set[str]:
        """Those of the files of `table` (path → bytes) to read tonight."""
        looks = self._before.get(table, {})
        self._now[table] = {path: looks.get(path, Looks(self._night)) for path in sizes}
        return share(sizes, looks, self._night, self._nights)

    def found_good(self, table: str, paths: Set[str]) -> None:
        """These files were read and are unchanged. Others are read again."""
        for path in paths:
            self._now[table][path] = Looks(self._now[table][path].seen, self._night)

    def keep(self) -> None:
        """Files that no longer belong to the tables are forgotten."""
        storage.write(self._uri, json.dumps(_Tables.dump_python(self._now, mode="json")).encode())
