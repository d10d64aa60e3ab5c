"""What a replica of the prediction service says about itself (`GET /models`, `/models/<m>`, `/admin/state`), and what
it keeps on disk for a start without the registry. `GET /models/<m>/signals` is in signals.py.

A reader ignores fields that it does not know: during an upgrade replicas are newer or older than the steps.
"""

from datetime import datetime
from typing import Literal

from pydantic import AliasChoices, ConfigDict, Field

from training.contract.base import Frozen
from training.contract.traffic import FULL, Desired


class ReplicaRecord(Frozen):
    model_config = ConfigDict(extra="ignore")


class ModelCopy(ReplicaRecord):
    """A version whose artifact is on the replica's disk."""

    version: int
    digest: str
    """Of the artifact: SHA-256, hex."""


class LoadedVersion(ModelCopy):
    """A version that answers. While its model is unloaded, the next request loads it."""

    since: datetime
    """When it took over its alias."""


class Refusal(ReplicaRecord):
    """A version that the replica will not serve."""

    reason: str
    at: datetime
    """When the load failed."""
    again: datetime | None = None
    """When the replica tries the version again, if the registry still asks for it. Older replicas do not say it."""


class ReplicaModels(ReplicaRecord):
    """`GET /models/<m>`: the versions of a model that a replica has loaded."""

    model: str
    replica: str
    ready: str = ""
    """`yes`, or why the replica cannot answer for the model now. Older replicas do not say it."""
    loaded: bool = True
    """Whether versions are in memory. False: the next request loads the champion from the replica's disk, or there is
    no version. Older replicas do not say it."""
    models: dict[str, LoadedVersion] = Field(validation_alias=AliasChoices("models", "slots"))
    """Alias (champion, challenger, previous) → its version. Older replicas call this `slots`."""
    traffic: Desired = FULL
    """How requests are divided between champion and challenger."""
    loaded_versions: list[int] | None = None
    """Versions in memory, with an alias or without. Null: an older replica, which does not say it."""
    held_back: str | None = None
    """Why the replica does not load the challenger although it could; null when it does, or there is none."""
    refused: dict[int, Refusal] = {}
    """Version → why it was refused."""
    problem: str | None = None
    """Why the replica does not do what the registry asks for; null when it does."""
    spec_problem: str | None = None
    """Why the replica does not use the spec file as it is now. It uses the last good one."""
    unshipped: bool | None = None
    """Whether it has predictions that are not in the lake yet. Null: an older replica, which does not say it."""

    @property
    def champion(self) -> LoadedVersion | None:
        return self.models.get("champion")


class ServedModels(ReplicaRecord):
    """`GET /models`: everything that a replica serves."""

    replica: str
    service: str
    """The name of the service (CT_SERVING_NAME)."""
    models: dict[str, ReplicaModels]
    not_served: dict[str, str] = {}
    """Model → why it is not served although it should be: its spec file is broken."""


class LastTraffic(ReplicaRecord):
    """`traffic.json` on a replica's disk: what it served last. A start without the registry restores it."""

    models: dict[str, ModelCopy] = Field(validation_alias=AliasChoices("models", "slots"))
    """Alias → its version. Older files call this `slots`."""
    traffic: Desired


class LoadRecord(ReplicaRecord):
    """What a replica knows about its loads of a version."""

    model: str
    version: int
    loading: bool = False
    """Whether it is being loaded now, or was when the service ended."""
    loaded_by: str = ""
    """What loaded it last; empty: it was never loaded here."""
    deaths: int = 0
    """How often the service ended while it was loading the version, since the version was last loaded."""
    died: datetime | None = None
    """When that was noticed last."""


class LoadRecords(ReplicaRecord):
    """`loads.json` on a replica's disk."""

    versions: dict[str, LoadRecord]
    """Digest of the artifact → what is known about its loads."""


class OnlineStoreState(ReplicaRecord):
    breaker: Literal["closed", "open", "half-open"]
    """The circuit breaker of the model's lookups. Open: the store failed, and no lookups are made for a moment."""
    problem: str | None
    """Why the last lookup failed; null when it did not."""


class PredictionLogState(ReplicaRecord):
    waiting: int
    """Rows in memory that are not yet on disk."""
    problem: str | None
    """Why predictions cannot be logged; null when they can."""


class ServedModelState(ReplicaRecord):
    """How one model of a replica is doing."""

    ready: str
    """`yes`, or why it cannot answer."""
    loaded: bool = True
    """Whether versions are in memory."""
    in_flight: int
    """Requests to this model that have begun and are not answered."""
    online_store: OnlineStoreState
    prediction_log: PredictionLogState
    spec_problem: str | None = None
    """Why the spec file is not used as it is now; null when it is."""


class ReplicaState(ReplicaRecord):
    """`GET /admin/state`: how a replica is doing."""

    replica: str
    ready: str
    """`yes`, or why it is not ready."""
    draining: bool
    """Whether the replica has been taken out of the rotation."""
    in_flight: int
    """Requests to all models that have begun and are not answered."""
    lag_seconds: float
    """How late the event loop runs its tasks."""
    models: dict[str, ServedModelState]
    not_served: dict[str, str] = {}
    """Model → why it is not served although it should be."""
