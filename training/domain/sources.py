"""The sources of feature rows as numbers, which a commit can store: the versions of events and labels, and the
definition of the table.
"""

import hashlib
import json
from typing import Any

from training.contract.base import TableVersions

#: The names of the two numbers in the commits of feature rows.
APPLICATION = "sources"
DEFINITION = "definition"
_BASE = 10**9


def number(versions: TableVersions) -> int:
    """One number for the versions of events and labels. It grows with events, and for equal events with labels.

    Without labels it is lower than with any version of labels.
    """
    return versions["events"] * _BASE + versions.get("labels", -1) + 1


def versions_of(number: int) -> TableVersions:
    """The inverse of `number`."""
    events, labels = divmod(number, _BASE)
    return {"events": events, **({"labels": labels - 1} if labels else {})}


def definition_number(*parts: Any) -> int:
    """60 bits of the SHA-256 of `parts`, which must be JSON values. Changes when the definition changes."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:15], 16)
