"""Which partitions have lost rows on request: `<lake>/<source>/_forgotten/<id>.json`. No record names a person.

A delivery of such a partition may bring the person back, so `ingest` says so. A hash of the value would tell more, and
whoever has a list of all customers could find the person by it.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from training import storage

#: In the folder of a source in the lake.
FOLDER = "_forgotten"


def record(lake: str, source: str, tombstone: str, column: str, partitions: Mapping[str, list[str]]) -> None:
    """Keep that rows of these `partitions` (feed → names) were removed."""
    content = {"at": datetime.now(UTC).isoformat(), "column": column, "partitions": dict(partitions)}
    storage.write(storage.join(lake, source, FOLDER, f"{tombstone}.json"), json.dumps(content, indent=1).encode())


def removals(lake: str, source: str, feed: str, partition: str) -> list[str]:
    """The ids of the tombstones of rows of this partition, sorted."""
    folder, found = storage.join(lake, source, FOLDER), []
    for file in storage.files(folder):
        kept = json.loads(storage.read(storage.join(folder, file.name)) or b"{}")
        if partition in kept.get("partitions", {}).get(feed, ()):
            found.append(file.name.removesuffix(".json"))
    return sorted(found)
