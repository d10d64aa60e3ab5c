"""What feature rows were made of, as numbers that a commit can carry: the versions of events and labels, and the
definition of the table."""

import hashlib
import json
from typing import Any

from training.contract.base import TableVersions

#: The names under which each commit of feature rows carries the numbers.
APPLICATION = "sources"
DEFINITION = "definition"
_BASE = 10**9


def number(versions: TableVersions) -> int:
    """Grows with the version of events and, within it, of labels; without labels yet, less than with any."""
    return versions["events"] * _BASE + versions.get("labels", -1) + 1


def versions_of(number: int) -> TableVersions:
    """The versions that `number` stands for."""
    events, labels = divmod(number, _BASE)
    return {"events": events, **({"labels": labels - 1} if labels else {})}


def definition_number(*parts: Any) -> int:
    """60 bits of the SHA-256 of `parts` (what JSON knows): another number when the definition is another."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:15], 16)
