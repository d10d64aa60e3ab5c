"""What feature rows were made of, as numbers that a commit can store: the versions of the feeds, the definition of the
table, and the days that were asked for.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from training.contract.base import Days, TableVersions

#: The name of the definition's number in the commits of feature rows.
DEFINITION = "definition"
#: The name, in the commits of feature rows, of the number of the days and of what the rows were made of. A step that
#: was killed after its commit finds it there and does not commit the same rows once more.
REQUEST = "request"


def feed_application(feed: str) -> str:
    """The name of the version of `feed` in the commits of feature rows."""
    return f"read/{feed}"


def made_of(versions: TableVersions, feeds: Iterable[str]) -> dict[str, int]:
    """The numbers of a commit of feature rows that were made of these `versions` of `feeds`."""
    return {feed_application(feed): versions[feed] for feed in feeds if feed in versions}


def age(versions: TableVersions, feeds: Iterable[str]) -> tuple[int, ...]:
    """Grows with the version of the first of `feeds`, for equal ones with the next. No version is older than any."""
    return tuple(versions.get(feed, -1) for feed in feeds)


def definition_number(*parts: Any) -> int:
    """60 bits of the SHA-256 of `parts`, which must be JSON values. Changes when the definition changes."""
    return _number(parts)


def request_number(days: Days | None, made_of: Mapping[str, int]) -> int:
    """The number of a commit of the rows of `days` that were `made_of` these numbers. See REQUEST."""
    return _number([str(days), sorted(made_of.items())])


def _number(parts: Any) -> int:
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:15], 16)
