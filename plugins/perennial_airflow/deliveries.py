"""What lies in a model's landing folder: one delivery per file, `<landing>/<model>/<feed>/<partition>.parquet`."""

import hashlib
import re
from dataclasses import dataclass

from training import storage
from training.settings import load_settings

FEEDS = ("events", "labels")

#: Seconds without a change after which a file counts as written. Files renamed into place need none of it.
SETTLE_SECONDS = 1.0


def landing_folder(model: str) -> str:
    return storage.join(load_settings().landing, model)


def landed_file(model: str, feed: str, partition: str) -> str:
    """Where a partition lands; the arguments may be templates."""
    return storage.join(landing_folder(model), feed, f"{partition}.parquet")


@dataclass(frozen=True)
class Delivery:
    """One file as it lies there now. Delivered again, under the same key, it has another fingerprint."""

    feed: str
    partition: str
    fingerprint: str

    @property
    def key(self) -> str:
        return f"{self.feed}/{self.partition}"

    def run_id(self, number: int) -> str:
        """The id of the data run that takes this in as the `number`-th delivery of its key.

        Airflow refuses a second run of the same id, which makes announcing a delivery twice harmless. The number
        tells a return to an older file (same name, size and time) from that file's first delivery.
        """
        partition = re.sub(r"[^A-Za-z0-9_.-]", "-", self.partition)
        return f"{self.feed}_{partition}_{number}_{self.fingerprint}"


def scan(folder: str, now: float, settle_seconds: float = SETTLE_SECONDS) -> list[Delivery]:
    """The deliveries in a model's landing folder, in the order to take them in: older days first, events before labels.

    Names that begin with a dot are not looked at, nor are files that changed less than `settle_seconds` before `now`
    (seconds since the epoch). Raises what training/storage.py does.
    """
    found = []
    for feed in FEEDS:
        for file in storage.files(storage.join(folder, feed)):
            if file.name.startswith(".") or not file.name.endswith(".parquet"):
                continue
            if now - file.changed.timestamp() >= settle_seconds:
                fingerprint = hashlib.sha256(file.stamp.encode()).hexdigest()[:8]
                found.append(Delivery(feed, file.name.removesuffix(".parquet"), fingerprint))
    return sorted(found, key=lambda d: (d.partition[:10], FEEDS.index(d.feed), d.partition))


class Announced:
    """Which deliveries have a data run: key → (number, fingerprint) of the newest. Kept in Airflow's asset state store.

    Keys are never dropped, also when their file is: a file that comes back must not be taken for its first delivery.
    A key takes about 45 bytes; two daily feeds make 33 kB a year.
    """

    KEY = "announced"

    def __init__(self, stored: object = None) -> None:
        entries = stored if isinstance(stored, dict) else {}
        self._entries: dict[str, tuple[int, str]] = {key: (int(n), str(f)) for key, (n, f) in entries.items()}

    def new(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Those of `deliveries` that have no data run yet, in the same order."""
        return [d for d in deliveries if self._entries.get(d.key, (0, ""))[1] != d.fingerprint]

    def number(self, delivery: Delivery) -> int:
        """Which delivery of its key a new one is, from 1."""
        return self._entries.get(delivery.key, (0, ""))[0] + 1

    def add(self, delivery: Delivery) -> None:
        self._entries[delivery.key] = (self.number(delivery), delivery.fingerprint)

    def stored(self) -> dict[str, list[int | str]]:
        return {key: [number, fingerprint] for key, (number, fingerprint) in self._entries.items()}
