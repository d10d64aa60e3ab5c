"""What feature rows were made of, as numbers that a commit can store: the versions of the feeds, and the definition of
the table (`definition_number` in identity.py).
"""

from collections.abc import Iterable

from training.contract.base import TableVersions

#: The name of the definition's number in the commits of feature rows.
DEFINITION = "definition"


def feed_application(feed: str) -> str:
    """The name of the version of `feed` in the commits of feature rows."""
    return f"read/{feed}"


def made_of(versions: TableVersions, feeds: Iterable[str]) -> dict[str, int]:
    """The numbers of a commit of feature rows that were made of these `versions` of `feeds`."""
    return {feed_application(feed): versions[feed] for feed in feeds if feed in versions}


def age(versions: TableVersions, feeds: Iterable[str]) -> tuple[int, ...]:
    """Grows with the version of the first of `feeds`, for equal ones with the next. No version is older than any."""
    return tuple(versions.get(feed, -1) for feed in feeds)
