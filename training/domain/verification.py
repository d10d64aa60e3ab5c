"""Which files of the lake are read in one night, so that each is read within a number of nights."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta


@dataclass(frozen=True)
class Looks:
    """When a file was first named, and when it was last read and found unchanged, if ever."""

    seen: date
    read: date | None = None


def share(sizes: Mapping[str, int], looks: Mapping[str, Looks], night: date, nights: int) -> set[str]:
    """Those of the files in `sizes` (path → bytes) to read at `night`.

    Read are files whose last night of the period is this one, and then others until 1/`nights` of all bytes are read:
    files that were never read first, then those that were read longest ago, each by path. So every file is read within
    `nights` nights after it was written and after it was last read, when the check runs every night, and a night in
    which it did not run is made up for.
    """

    def due(path: str) -> date:
        """The last night on which it may be read."""
        known = looks.get(path, Looks(night))
        return known.seen + timedelta(days=nights - 1) if known.read is None else known.read + timedelta(days=nights)

    def order(path: str) -> tuple[bool, date, str]:
        known = looks.get(path)
        return known is not None and known.read is not None, due(path), path

    chosen = {path for path in sizes if due(path) <= night}
    left = sum(sizes.values()) / nights - sum(sizes[path] for path in chosen)
    for path in sorted(sizes.keys() - chosen, key=order):
        if left <= 0:
            break
        chosen.add(path)
        left -= sizes[path]
    return chosen
