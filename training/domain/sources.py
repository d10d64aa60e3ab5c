"""What feature rows were made of: the versions of events and labels, as the one number that a commit can carry."""

from training.contract.base import TableVersions

#: The name under which each commit of feature rows carries the number.
APPLICATION = "sources"
_BASE = 10**9


def number(versions: TableVersions) -> int:
    """Grows with the version of events and, within it, of labels; without labels yet, less than with any."""
    return versions["events"] * _BASE + versions.get("labels", -1) + 1


def versions_of(number: int) -> TableVersions:
    """The versions that `number` stands for."""
    events, labels = divmod(number, _BASE)
    return {"events": events, **({"labels": labels - 1} if labels else {})}
